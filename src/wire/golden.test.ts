import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { Unpackr } from "msgpackr";
import { expect, test } from "vitest";
import { encodeFrame, FrameReader } from "./frames.ts";
import { decodeValue } from "./msgpack.ts";
import { parseAnswer, parseRequest } from "./protocol.ts";

/**
 * test/golden/wire/messages.json describes every message, one NAME.bin per entry holds its frame. Python's tests read the
 * same files. Tokens are written as {"u32le": [ … ]}. `UPDATE_GOLDEN=1 npx vitest run golden` writes the frames anew;
 * a change to one is a change of the protocol's version.
 */
interface Golden {
  readonly name: string;
  readonly from: "guest" | "cache";
  readonly message: { readonly [field: string]: unknown };
}

const folder = new URL("../../test/golden/wire/", import.meta.url);
const goldens = JSON.parse(readFileSync(new URL("messages.json", folder), "utf8")) as Golden[];

/** The message as the protocol's types have it; binary fields as bytes for the encoder. */
function asMessage(golden: Golden, tokensAs: "bytes" | "tokens"): { [field: string]: unknown } {
  const entries = Object.entries(golden.message).map(([field, value]) => {
    if (value === null && tokensAs === "tokens") return [field, undefined]; // nil, as the parser gives it
    if (typeof value !== "object" || value === null || !("u32le" in value)) return [field, value];
    const tokens = Uint32Array.from(value.u32le as number[]);
    return [field, tokensAs === "tokens" ? tokens : new Uint8Array(tokens.buffer)];
  });
  return Object.fromEntries(entries);
}

test.each(goldens)("$name is written and read as the golden frame says", (golden) => {
  const file = new URL(`${golden.name}.bin`, folder);
  const frame = encodeFrame(asMessage(golden, "bytes"));
  if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(file, frame);
  expect(Buffer.compare(frame, readFileSync(file))).toBe(0);

  const reader = new FrameReader();
  for (const byte of frame) reader.push(Buffer.from([byte])); // in as many pieces as there can be
  const body = reader.next()!;
  const expected = asMessage(golden, "tokens");
  const parsed: unknown = golden.from === "guest" ? parseRequest(body) : parseAnswer(body);
  const shaped =
    golden.name === "commit"
      ? {
          ...expected,
          chunks: [
            { lease: 7, bytes: 512 },
            { lease: 8, bytes: 300 },
          ],
        }
      : expected;
  expect(parsed).toEqual(shaped);
  expect(reader.pendingBytes).toBe(0);
});

test("every golden frame is described, and our reader agrees with a general one", () => {
  const frames = readdirSync(folder).filter((name) => name.endsWith(".bin"));
  expect(frames.toSorted()).toEqual(goldens.map(({ name }) => `${name}.bin`).toSorted());
  const unpackr = new Unpackr({ useRecords: false, int64AsType: "number" });
  for (const name of frames) {
    const body = readFileSync(new URL(name, folder)).subarray(4);
    const plain = (value: unknown) =>
      JSON.stringify(value, (_, item: unknown) => (item instanceof Uint8Array ? [...item] : item));
    expect(plain(decodeValue(body))).toBe(plain(unpackr.unpack(body)));
  }
});
