/**
 * The bytes of a record: one chunk with its identity, its tokens and the payloads of all ranks.
 *
 *     offset  bytes
 *          0      4  magic "RPRC"
 *          4      2  format version (1)                       all numbers little-endian
 *          6      2  ranks
 *          8      4  header bytes, padding not counted
 *         12      4  token count
 *         16      4  position of the first token
 *         20      4  zero
 *         24     32  space
 *         56     32  root
 *         88     32  key
 *        120     32  parent's key, or the root's
 *        152   24·R  per rank: payload bytes (4), zero (4), payload checksum (16)
 *          …    4·T  tokens
 *          …     16  xxh3-128 of everything before
 *          …         zeros to the next multiple of 4096
 *          …         payload of rank 0, zeros to the next multiple of 4096; rank 1 …
 *
 * A payload's checksum is the xxh3-128 of the xxh3-128s of its pieces of 1 MiB, so that a large one is hashed without
 * holding up the event loop.
 */
import { xxh3 } from "@node-rs/xxhash";
import { tokenBytes, tokensFromBytes, type ChunkKey, type RootKey } from "../../cache/chunk.ts";
import type { SpaceId } from "../../cache/space.ts";
import type { ChunkRecord } from "../../tier.ts";

export const formatVersion = 1;
export const pageBytes = 4096;
const magic = 0x43525052; // "RPRC"
const fixedBytes = 152;
const rankBytes = 24;
const checksumBytes = 16;
const maxRanks = 1024;
const maxTokens = 65_536;
const checksumPieceBytes = 1024 * 1024;

export interface DecodedRecord {
  readonly record: ChunkRecord;
  readonly checksums: readonly bigint[];
  /** Header and payloads with their padding. */
  readonly totalBytes: number;
  /** Offset of each rank's payload from the record's start. */
  readonly payloadOffsets: readonly number[];
}

/** The header, padded to whole pages. */
export function encodeHeader(record: ChunkRecord, checksums: readonly bigint[]): Buffer {
  const headerBytes = headerLength(record);
  const header = Buffer.alloc(padded(headerBytes));
  header.writeUInt32LE(magic, 0);
  header.writeUInt16LE(formatVersion, 4);
  header.writeUInt16LE(record.payloadBytes.length, 6);
  header.writeUInt32LE(headerBytes, 8);
  header.writeUInt32LE(record.tokens.length, 12);
  header.writeUInt32LE(record.firstToken, 16);
  for (const [i, digest] of [record.space, record.root, record.key, record.parent].entries())
    header.write(digest, 24 + 32 * i, 32, "hex");
  for (const [rank, bytes] of record.payloadBytes.entries()) {
    header.writeUInt32LE(bytes, fixedBytes + rankBytes * rank);
    writeChecksum(header, fixedBytes + rankBytes * rank + 8, checksums[rank]!); // one per payload
  }
  header.set(tokenBytes(record.tokens), fixedBytes + rankBytes * record.payloadBytes.length);
  writeChecksum(header, headerBytes - checksumBytes, xxh3.xxh128(header.subarray(0, headerBytes - checksumBytes)));
  return header;
}

/**
 * Reads a header at the start of `bytes`.
 *
 * @returns how many bytes are needed when `bytes` ends before the header does.
 */
export function decodeHeader(bytes: Buffer): DecodedRecord | { readonly neededBytes: number } | "damaged" {
  if (bytes.length < fixedBytes || bytes.readUInt32LE(0) !== magic) return "damaged";
  const ranks = bytes.readUInt16LE(6);
  const headerBytes = bytes.readUInt32LE(8);
  const tokenCount = bytes.readUInt32LE(12);
  const plausible =
    bytes.readUInt16LE(4) === formatVersion &&
    ranks >= 1 &&
    ranks <= maxRanks &&
    tokenCount >= 1 &&
    tokenCount <= maxTokens;
  if (!plausible || headerBytes !== fixedBytes + rankBytes * ranks + 4 * tokenCount + checksumBytes) return "damaged";
  if (bytes.length < headerBytes) return { neededBytes: headerBytes };
  const checksum = readChecksum(bytes, headerBytes - checksumBytes);
  if (xxh3.xxh128(bytes.subarray(0, headerBytes - checksumBytes)) !== checksum) return "damaged";

  const digest = (i: number) => bytes.toString("hex", 24 + 32 * i, 56 + 32 * i);
  const payloadBytes: number[] = [];
  const checksums: bigint[] = [];
  for (let rank = 0; rank < ranks; rank += 1) {
    payloadBytes.push(bytes.readUInt32LE(fixedBytes + rankBytes * rank));
    checksums.push(readChecksum(bytes, fixedBytes + rankBytes * rank + 8));
  }
  const tokensAt = fixedBytes + rankBytes * ranks;
  const record: ChunkRecord = {
    space: digest(0) as SpaceId,
    root: digest(1) as RootKey,
    key: digest(2) as ChunkKey,
    parent: digest(3) as ChunkKey | RootKey,
    firstToken: bytes.readUInt32LE(16),
    tokens: tokensFromBytes(bytes.subarray(tokensAt, tokensAt + 4 * tokenCount)),
    payloadBytes,
  };
  return { record, checksums, totalBytes: recordBytes(record), payloadOffsets: payloadOffsets(record) };
}

/** Bytes a record takes, padding included. */
export function recordBytes(record: ChunkRecord): number {
  return record.payloadBytes.reduce((sum, bytes) => sum + padded(bytes), padded(headerLength(record)));
}

export function payloadOffsets(record: ChunkRecord): number[] {
  let at = padded(headerLength(record));
  return record.payloadBytes.map((bytes) => {
    const offset = at;
    at += padded(bytes);
    return offset;
  });
}

export function padded(bytes: number): number {
  return Math.ceil(bytes / pageBytes) * pageBytes;
}

/** See the layout above. Lets other work in between the pieces. */
export async function payloadChecksum(payload: Uint8Array): Promise<bigint> {
  const pieces = Math.ceil(payload.length / checksumPieceBytes);
  const digests = Buffer.alloc(checksumBytes * pieces);
  for (let piece = 0; piece < pieces; piece += 1) {
    const from = piece * checksumPieceBytes;
    writeChecksum(digests, checksumBytes * piece, xxh3.xxh128(payload.subarray(from, from + checksumPieceBytes)));
    if (piece + 1 < pieces) await new Promise((resolve) => setImmediate(resolve));
  }
  return xxh3.xxh128(digests);
}

function headerLength(record: ChunkRecord): number {
  return fixedBytes + rankBytes * record.payloadBytes.length + 4 * record.tokens.length + checksumBytes;
}

function writeChecksum(into: Buffer, at: number, checksum: bigint): void {
  into.writeBigUInt64LE(checksum & 0xffff_ffff_ffff_ffffn, at);
  into.writeBigUInt64LE(checksum >> 64n, at + 8);
}

function readChecksum(from: Buffer, at: number): bigint {
  return from.readBigUInt64LE(at) | (from.readBigUInt64LE(at + 8) << 64n);
}
