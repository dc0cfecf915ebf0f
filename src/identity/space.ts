/**
 * Space: the identity under which KV bytes are interchangeable.
 *
 * Two engines share KV exactly when they describe the same space. Everything that could change a byte is in the
 * description, so a changed setting can only miss. Nothing is taken from the environment.
 *
 * Canonical encoding (the same in TypeScript and Python; vectors in test/vectors/keys.json):
 *
 *     "reprise-space-1\n" then one line "name=value\n" per field, sorted by name; integers in decimal, strings as UTF-8
 *     without line breaks, floating point numbers never (they travel as the hexadecimal bits of an IEEE double). `groups`
 *     as its kinds with commas between them, and no line at all where there is one group of rows.
 *
 * What is stored of a chunk is its parts: one payload for each group of each rank.
 *
 *     part = rank × number of groups + group
 */
import { createHash } from "node:crypto";

declare const brand: unique symbol;
/** SHA-256 of a space's canonical encoding, 64 hexadecimal digits. */
export type SpaceId = string & { readonly [brand]: "SpaceId" };

/**
 * How the KV of a group of layers lies in its payload. *rows*: token by token, so that it can be cut anywhere and a chunk's
 * payload continues that of the chunk before it. *snapshot*: the state after the chunk's last token, which stands for all
 * the text before it and is good for nothing else: what recurrent layers keep.
 */
export type GroupKind = "rows" | "snapshot";

export interface SpaceDescription {
  /** Engine family whose payload layout this is: "llama.cpp", "vllm", or a library user's own name. */
  readonly engine: string;
  /** Version of that engine's payload layout; it changes whenever the bytes of a payload change their meaning. */
  readonly payloadFormat: number;
  /** SHA-256 of the weights, hexadecimal. */
  readonly weights: string;
  /** Element types of keys and values as the engine names them, for example "f16", and whether they are transformed. */
  readonly keyType: string;
  readonly valueType: string;
  readonly layers: number;
  readonly keyValueHeads: number;
  /** Elements of one head's key and value. */
  readonly keySize: number;
  readonly valueSize: number;
  /** Order of the bytes in a payload, for example "token-major" or a vLLM stride order. */
  readonly layout: string;
  /** "dense", "sliding", "mla" … */
  readonly attention: string;
  /** Every RoPE parameter in one string of the engine's making; floats as {@link doubleBits}. */
  readonly rope: string;
  /** Ranks that share a token's KV; each has a part of a chunk for each of its groups. */
  readonly tensorParallel: number;
  /** Tokens per chunk. */
  readonly chunkTokens: number;
  /** The groups of layers that have payloads of their own, at least one of rows among them. Not given: one group of rows. */
  readonly groups?: readonly GroupKind[] | undefined;
}

const oneGroup: readonly GroupKind[] = ["rows"];

/** The kinds of a space's groups, by group. */
export function groupsOf({ groups = oneGroup }: Pick<SpaceDescription, "groups">): readonly GroupKind[] {
  return groups;
}

/** A space of payloads of which nothing is known but whose they are: `weights` stands for all that could change a byte. */
export function opaqueSpace(engine: string, weights: string, chunkTokens: number): SpaceDescription {
  return {
    engine,
    payloadFormat: 1,
    weights,
    keyType: "",
    valueType: "",
    layers: 0,
    keyValueHeads: 0,
    keySize: 0,
    valueSize: 0,
    layout: "",
    attention: "",
    rope: "",
    tensorParallel: 1,
    chunkTokens,
  };
}

/** The identity of `space`. @throws TypeError when a field has a line break or half a character, or is not an integer or string. */
export function spaceId({ groups, ...single }: SpaceDescription): SpaceId {
  const kinds = groupsOf({ groups }).join(",");
  const lines = Object.entries({ ...single, ...(kinds === "rows" ? {} : { groups: kinds }) })
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]: [string, unknown]) => `${name}=${canonicalValue(name, value)}\n`);
  return createHash("sha256")
    .update(`reprise-space-1\n${lines.join("")}`, "utf8")
    .digest("hex") as SpaceId;
}

/** The bits of an IEEE double, 16 hexadecimal digits: how a float enters a space without being printed. */
export function doubleBits(value: number): string {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(value);
  return bytes.toString("hex");
}

function canonicalValue(name: string, value: unknown): string {
  if (typeof value === "number" && Number.isSafeInteger(value)) return String(value);
  if (typeof value === "string" && !/[\r\n\p{Surrogate}]/u.test(value)) return value;
  throw new TypeError(`space field ${name} must be an integer or a string of whole characters without line breaks`);
}
