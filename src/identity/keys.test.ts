import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { testSpace } from "../../test/support/cache.ts";
import { chunkKeys, rootKey, tenantName, type RootKey } from "./keys.ts";
import { tokensFromBytes } from "./tokens.ts";
import { doubleBits, spaceId, type SpaceDescription, type SpaceId } from "./space.ts";

interface RootVector {
  readonly space: SpaceId;
  readonly salt: string;
  readonly adapter: string;
  readonly key: string;
}

/** Made by an implementation of its own, so that this is not a comparison with ourselves. */
const vectors = JSON.parse(readFileSync(new URL("../../test/vectors/keys.json", import.meta.url), "utf8")) as {
  readonly spaces: readonly { readonly space: SpaceDescription; readonly id: string }[];
  readonly roots: readonly RootVector[];
  /** Texts that a client may well send, and that no plain UTF-8 has. */
  readonly oddRoots: readonly RootVector[];
  readonly longRoots: readonly {
    readonly space: SpaceId;
    readonly text: string;
    readonly times: number;
    readonly saltKey: string;
    readonly adapterKey: string;
  }[];
  readonly tenants: readonly { readonly tenant: string; readonly name: string }[];
  readonly chunks: readonly {
    readonly root: RootKey;
    readonly chunkTokens: number;
    readonly tokens: readonly number[];
    readonly keys: readonly string[];
  }[];
  readonly doubleBits: readonly { readonly value: string; readonly bits: string }[];
};

test("spaces, roots, chunks and doubles have the identities that the vectors say", () => {
  for (const { space, id } of vectors.spaces) expect(spaceId(space)).toBe(id);
  const roots = [...vectors.roots, ...vectors.oddRoots];
  for (const { space, key, ...root } of roots) expect(rootKey(space, root)).toBe(key);
  for (const { space, text, times, saltKey, adapterKey } of vectors.longRoots) {
    const long = text.repeat(times);
    expect(rootKey(space, { salt: long, adapter: "" })).toBe(saltKey);
    expect(rootKey(space, { salt: "", adapter: long })).toBe(adapterKey);
  }
  for (const { tenant, name } of vectors.tenants) expect(tenantName(tenant)).toBe(name);
  for (const { root, chunkTokens, tokens, keys } of vectors.chunks)
    expect(chunkKeys(root, Uint32Array.from(tokens), chunkTokens)).toEqual(keys);
  for (const { value, bits } of vectors.doubleBits) expect(doubleBits(Number(value))).toBe(bits);
  const keys = [
    ...roots.map(({ key }) => key),
    ...vectors.longRoots.flatMap((long) => [long.saltKey, long.adapterKey]),
  ];
  expect(new Set(keys).size).toBe(keys.length);
});

test("a space is the same in whatever order its fields are, and refuses what it cannot encode", () => {
  const space = testSpace();
  const reversed = Object.fromEntries(Object.entries(space).toReversed()) as unknown as SpaceDescription;
  expect(spaceId(reversed)).toBe(spaceId(space));
  expect(() => spaceId({ ...space, rope: "a\nb" })).toThrow(TypeError);
  expect(() => spaceId({ ...space, rope: "\ud800" })).toThrow(TypeError);
  expect(() => spaceId({ ...space, layers: 0.5 })).toThrow(TypeError);
});

test("tokens are copied out of a buffer that is not aligned", () => {
  const bytes = Buffer.from([9, 1, 0, 0, 0, 2, 0, 0, 0]).subarray(1);
  const tokens = tokensFromBytes(bytes);
  bytes.fill(0);
  expect([...tokens]).toEqual([1, 2]);
});
