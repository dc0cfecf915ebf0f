/**
 * The index objects: each tells of the chunks of one run, up to the one that it is named after, what they are and where they lie.
 *
 *     offset  bytes
 *          0      8  magic "RPS3INDX"
 *          8      2  format version (1)                       all numbers little-endian
 *         10      2  chunks, consecutive
 *         12      …  per chunk: data object's id (16), its first byte there (8), bytes of the head (4), head (../shared/head.ts)
 *          …     16  xxh3-128 of all before
 *
 * A data object has nothing but payloads, those of one chunk after those of another, and never changes; an index says the same of a
 * chunk as any other does, or names another copy. Heads are sealed by themselves; ids and places tell nothing.
 */
import { xxh3 } from "@node-rs/xxhash";
import type { RecordBounds } from "../../tier.ts";
import { longestHead, maxHeadBytes } from "../shared/head.ts";
import { maxRunChunks } from "./run-ends.ts";

/** Where the payloads of a chunk lie, one after the other. */
export interface Place {
  /** Of the data object, hexadecimal. */
  readonly data: string;
  readonly offset: number;
}

export interface IndexEntry extends Place {
  /** Encoded. */
  readonly head: Buffer;
}

const magic = Buffer.from("RPS3INDX", "latin1");
const version = 1;
const openBytes = 12;
const placeBytes = 28;
const checksumBytes = 16;
/** Of any index; those of usual chunks have some 10 KiB. */
export const maxIndexBytes = 4 * 1024 * 1024;

/** Bytes of an index of so many chunks, none of which has more than the bounds. */
export function longestIndex(chunks: number, bounds: RecordBounds | undefined): number {
  if (bounds === undefined) return maxIndexBytes;
  return Math.min(maxIndexBytes, openBytes + chunks * (placeBytes + longestHead(bounds)) + checksumBytes);
}

export function encodeIndex(entries: readonly IndexEntry[]): Buffer {
  const open = Buffer.alloc(openBytes);
  magic.copy(open);
  open.writeUInt16LE(version, 8);
  open.writeUInt16LE(entries.length, 10);
  const rows = entries.flatMap(({ data, offset, head }) => {
    const row = Buffer.alloc(placeBytes);
    row.write(data, "hex");
    row.writeBigUInt64LE(BigInt(offset), 16);
    row.writeUInt32LE(head.length, 24);
    return [row, head];
  });
  const all = Buffer.concat([open, ...rows]);
  return Buffer.concat([all, checksumOf(all)]);
}

/** @returns undefined for anything else than an index of this version */
export function decodeIndex(bytes: Buffer): IndexEntry[] | undefined {
  const end = bytes.length - checksumBytes;
  if (end < openBytes || !bytes.subarray(0, 8).equals(magic) || bytes.readUInt16LE(8) !== version) return undefined;
  if (!checksumOf(bytes.subarray(0, end)).equals(bytes.subarray(end))) return undefined;
  const count = bytes.readUInt16LE(10);
  if (count > maxRunChunks) return undefined;
  const entries: IndexEntry[] = [];
  let at = openBytes;
  for (let i = 0; i < count; i += 1) {
    if (at + placeBytes > end) return undefined;
    const [offset, headBytes] = [Number(bytes.readBigUInt64LE(at + 16)), bytes.readUInt32LE(at + 24)];
    const head = bytes.subarray(at + placeBytes, at + placeBytes + headBytes);
    if (!Number.isSafeInteger(offset) || headBytes > maxHeadBytes || at + placeBytes + headBytes > end)
      return undefined;
    entries.push({ data: bytes.toString("hex", at, at + 16), offset, head });
    at += placeBytes + headBytes;
  }
  return at === end ? entries : undefined;
}

function checksumOf(bytes: Uint8Array): Buffer {
  const sum = xxh3.xxh128(bytes);
  const checksum = Buffer.alloc(checksumBytes);
  checksum.writeBigUInt64LE(sum & 0xffff_ffff_ffff_ffffn);
  checksum.writeBigUInt64LE(sum >> 64n, 8);
  return checksum;
}
