/**
 * The head of a record in a shared store: what the chunk is, and what its payloads must be. The payloads lie in pieces of their
 * own, named after the record's random id, so that a head never goes with those of another writing.
 *
 *     offset  bytes
 *          0      8  magic "RPSHARED"
 *          8      2  format version                           all numbers little-endian
 *                      1: payloads as they are; 2: some are packed (packing.ts), a miss for whoever knows version 1 only
 *         10      2  1: sealed with a tier key
 *         12      4  bytes of the body
 *         16     16  id of this record, random
 *         32      8  id of the tier key; zeros when not sealed
 *         40      …  body, sealed or not: space, root, key, parent (32 each)
 *                      position of the first token, tokens, parts (4 each)
 *                      per part: payload bytes (4; 0: there is none), packed bytes (4; 0: as it is), checksum (16, ../payload-checksum.ts), tag (16)
 *                      tokens (4 each)
 *          …     16  the body's tag, or the xxh3-128 of all before
 *
 * Nothing of it is believed: the key must follow from parent and tokens, and all of it must be what was asked for.
 */
import { xxh3 } from "@node-rs/xxhash";
import { chunkKey, type ChunkKey, type RootKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import { tokenBytes, tokensFromBytes } from "../../identity/tokens.ts";
import type { ChunkRecord, RecordBounds } from "../../tier.ts";
import { keyIdBytes, newRecordId, type RecordSealing, recordIdBytes, tagBytes, type TierKey } from "./tier-keys.ts";

export interface Head {
  readonly record: ChunkRecord;
  /** Random, hexadecimal: names the pieces. */
  readonly id: string;
  /** Of the payloads, by part; 0 where there is none. */
  readonly checksums: readonly bigint[];
  /** By part, what its payload has on the way and in the store: fewer than it has itself where it is packed. */
  readonly storedBytes: readonly number[];
  /** Undefined: nothing is sealed. */
  readonly sealed: { readonly by: RecordSealing; readonly tags: readonly Uint8Array[] } | undefined;
}

const magic = Buffer.from("RPSHARED", "latin1");
const versions = { plain: 1, packed: 2 };
const openBytes = 40;
const fixedBytes = 4 * 32 + 3 * 4;
const partBytes = 40;
/** As many as records on disk may have. */
const maxParts = 1024;
const maxTokens = 65_536;
/** Of any head. */
export const maxHeadBytes = longestHead({ parts: maxParts, tokens: maxTokens });

const noTag = new Uint8Array(tagBytes);

/** What a head says of a payload. */
export interface HeadPart {
  /** Of the payload itself, whatever way it is stored. */
  readonly checksum: bigint;
  readonly storedBytes: number;
  readonly tag: Uint8Array;
}

/** Bytes of the head of a record that has so much, sealed or not, packed or not. */
export function longestHead({ parts, tokens }: RecordBounds): number {
  return openBytes + fixedBytes + parts * partBytes + tokens * 4 + tagBytes;
}

/** A head that is to be written: its id must be known before the payloads are sealed, and their tags before it can be. */
export class HeadWriter {
  readonly id = newRecordId();
  readonly sealing: RecordSealing | undefined;
  readonly #key: TierKey | undefined;

  constructor(key: TierKey | undefined) {
    this.#key = key;
    this.sealing = key?.sealing(this.id);
  }

  encode(record: ChunkRecord, parts: readonly HeadPart[]): Buffer {
    const body = bodyOf(record, parts);
    const isPacked = parts.some(({ storedBytes }, i) => storedBytes < record.payloadBytes[i]!); // one for each part
    const open = Buffer.alloc(openBytes);
    magic.copy(open);
    open.writeUInt16LE(isPacked ? versions.packed : versions.plain, 8);
    open.writeUInt16LE(this.#key === undefined ? 0 : 1, 10);
    open.writeUInt32LE(body.length, 12);
    this.id.copy(open, 16);
    this.#key?.id.copy(open, 32);
    if (this.sealing === undefined) return Buffer.concat([open, body, checksumOf(open, body)]);
    const { sealed, tag } = this.sealing.seal(0, body, open);
    return Buffer.concat([open, sealed, tag]);
  }
}

/**
 * @param keys that may have sealed it
 * @param unpacks whether what is packed is ours to read
 * @returns "foreign": of another version, packed though we cannot unpack, or sealed with a key that we do not have; "damaged": anything
 *   else that it should not be
 */
export function decodeHead(
  bytes: Buffer,
  { keys, unpacks }: { readonly keys: readonly TierKey[]; readonly unpacks: boolean },
): Head | "foreign" | "damaged" {
  if (bytes.length < openBytes || !bytes.subarray(0, 8).equals(magic)) return "damaged";
  const isPacked = bytes.readUInt16LE(8) === versions.packed;
  if (isPacked ? !unpacks : bytes.readUInt16LE(8) !== versions.plain) return "foreign";
  if (bytes.readUInt16LE(10) > 1) return "foreign";
  const bodyBytes = bytes.readUInt32LE(12);
  if (bytes.length !== openBytes + bodyBytes + tagBytes || bodyBytes < fixedBytes) return "damaged";
  const open = bytes.subarray(0, openBytes);
  const [body, tag] = [bytes.subarray(openBytes, -tagBytes), bytes.subarray(-tagBytes)];
  const id = bytes.subarray(16, 16 + recordIdBytes);
  if (bytes.readUInt16LE(10) === 0) {
    // Where a key is set, what is not sealed is nobody's that is trusted.
    if (keys.length > 0) return "foreign";
    return checksumOf(open, body).equals(tag) ? parseBody(body, { id, isPacked, by: undefined }) : "damaged";
  }
  const key = keys.find((each) => each.id.equals(bytes.subarray(32, 32 + keyIdBytes)));
  if (key === undefined) return "foreign";
  const sealing = key.sealing(id);
  const opening = sealing.opening(0, tag, open);
  const plain = opening.open(body);
  return opening.end() ? parseBody(plain, { id, isPacked, by: sealing }) : "damaged";
}

function bodyOf(record: ChunkRecord, parts: readonly HeadPart[]): Buffer {
  const { space, root, key, parent, firstToken, tokens, payloadBytes } = record;
  const fixed = Buffer.alloc(fixedBytes + parts.length * partBytes);
  for (const [i, digest] of [space, root, key, parent].entries()) fixed.write(digest, i * 32, "hex");
  fixed.writeUInt32LE(firstToken, 128);
  fixed.writeUInt32LE(tokens.length, 132);
  fixed.writeUInt32LE(parts.length, 136);
  for (const [i, { checksum, storedBytes, tag }] of parts.entries()) {
    const at = fixedBytes + i * partBytes;
    const bytes = payloadBytes[i]!; // one for each part
    fixed.writeUInt32LE(bytes, at);
    fixed.writeUInt32LE(storedBytes < bytes ? storedBytes : 0, at + 4);
    writeUInt128(fixed, checksum, at + 8);
    fixed.set(tag, at + 24);
  }
  return Buffer.concat([fixed, tokenBytes(tokens)]);
}

function parseBody(
  body: Buffer,
  { id, isPacked, by }: { id: Buffer; isPacked: boolean; by: RecordSealing | undefined },
): Head | "damaged" {
  const [tokenCount, parts] = [body.readUInt32LE(132), body.readUInt32LE(136)];
  if (tokenCount === 0 || tokenCount > maxTokens || parts === 0 || parts > maxParts) return "damaged";
  const tokensAt = fixedBytes + parts * partBytes;
  if (body.length !== tokensAt + tokenCount * 4) return "damaged";
  const digest = (i: number) => body.toString("hex", i * 32, (i + 1) * 32);
  const tokens = tokensFromBytes(Uint8Array.from(body.subarray(tokensAt)));
  const [key, parent] = [digest(2) as ChunkKey, digest(3) as ChunkKey | RootKey];
  if (chunkKey(parent, tokens) !== key) return "damaged";
  const rows = Array.from({ length: parts }, (_, i) => {
    const at = fixedBytes + i * partBytes;
    const bytes = body.readUInt32LE(at);
    const packedBytes = isPacked ? body.readUInt32LE(at + 4) : 0;
    return {
      bytes,
      storedBytes: packedBytes === 0 ? bytes : packedBytes,
      checksum: readUInt128(body, at + 8),
      tag: by === undefined ? noTag : Uint8Array.from(body.subarray(at + 24, at + 40)),
    };
  });
  if (rows.some(({ bytes, storedBytes }) => storedBytes > bytes)) return "damaged";
  return {
    record: {
      space: digest(0) as SpaceId,
      root: digest(1) as RootKey,
      key,
      parent,
      firstToken: body.readUInt32LE(128),
      tokens,
      payloadBytes: rows.map(({ bytes }) => bytes),
    },
    id: id.toString("hex"),
    checksums: rows.map(({ checksum }) => checksum),
    storedBytes: rows.map(({ storedBytes }) => storedBytes),
    sealed: by === undefined ? undefined : { by, tags: rows.map(({ tag }) => tag) },
  };
}

function checksumOf(open: Uint8Array, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(tagBytes);
  writeUInt128(bytes, xxh3.xxh128(Buffer.concat([open, body])), 0);
  return bytes;
}

function writeUInt128(into: Buffer, value: bigint, at: number): void {
  into.writeBigUInt64LE(value & 0xffff_ffff_ffff_ffffn, at);
  into.writeBigUInt64LE(value >> 64n, at + 8);
}

function readUInt128(from: Buffer, at: number): bigint {
  return from.readBigUInt64LE(at) | (from.readBigUInt64LE(at + 8) << 64n);
}
