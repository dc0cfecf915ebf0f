/**
 * The bytes of a record: one chunk with its identity, its tokens and the payloads of all parts.
 *
 *     offset  bytes
 *          0      4  magic "RPRC"
 *          4      2  format version (2)                       all numbers little-endian
 *          6      2  parts
 *          8      4  header bytes, padding not counted
 *         12      4  token count
 *         16      4  position of the first token
 *         20      4  times it was read before it was last rewritten
 *         24      8  when the chunk was first written, ms since 1970
 *         32      8  offset of this record in its region
 *         40     16  nonce of its region
 *         56     32  space
 *         88     32  root
 *        120     32  key
 *        152     32  parent's key, or the root's
 *        184   24·P  per part: payload bytes (4; 0: there is none), zero (4), payload checksum (16, see payload-checksum.ts)
 *          …    4·T  tokens
 *          …     16  xxh3-128 of everything before
 *          …         zeros to the next multiple of 4096
 *          …         payload of part 0, zeros to the next multiple of 4096; part 1 …
 *
 * Nonce and offset tie a header to its place: bytes of another region, of an older one that lay in the same place, or
 * of another place in the same one are no record.
 */
import { xxh3 } from "@node-rs/xxhash";
import { type ChunkKey, type RootKey } from "../../identity/keys.ts";
import { tokenBytes, tokensFromBytes } from "../../identity/tokens.ts";
import type { SpaceId } from "../../identity/space.ts";
import type { ChunkRecord } from "../../tier.ts";
import { leavesOf, rootOf } from "../payload-checksum.ts";
import { padded } from "../../pages.ts";

export const formatVersion = 2;
export const nonceBytes = 16;
export const checksumBytes = 16;
const magic = 0x43525052; // "RPRC"
const fixedBytes = 184;
/** Where the key stands in a header. */
export const keyAt = 120;
const partBytes = 24;
/** More are in no record that is read. */
export const maxParts = 1024;
const maxTokens = 65_536;

/** Where a record stands. */
export interface RecordPlace {
  readonly nonce: Uint8Array;
  readonly offset: number;
}

/** What a header says besides the chunk. */
export interface RecordHistory {
  readonly writtenAt: number;
  readonly reads: number;
}

export interface DecodedRecord extends RecordHistory {
  readonly record: ChunkRecord;
  readonly checksums: readonly bigint[];
  readonly headerBytes: number;
}

export function headerLength(record: ChunkRecord): number {
  return fixedBytes + partBytes * record.payloadBytes.length + 4 * record.tokens.length + checksumBytes;
}

/** Bytes a record takes, padding included. */
export function recordBytes(record: ChunkRecord): number {
  return record.payloadBytes.reduce((sum, bytes) => sum + padded(bytes), padded(headerLength(record)));
}

/**
 * Writes the header to the start of `into` and zeros behind it; without checksums it is to be completed by
 * {@link completeHeaders}.
 *
 * @returns the header without padding, a view
 */
export function encodeHeader(
  into: Buffer,
  record: ChunkRecord,
  checksums: readonly bigint[] | undefined,
  place: RecordPlace,
  history: RecordHistory,
): Buffer {
  const headerBytes = headerLength(record);
  const header = into.subarray(0, headerBytes);
  header.writeUInt32LE(magic, 0);
  header.writeUInt16LE(formatVersion, 4);
  header.writeUInt16LE(record.payloadBytes.length, 6);
  header.writeUInt32LE(headerBytes, 8);
  header.writeUInt32LE(record.tokens.length, 12);
  header.writeUInt32LE(record.firstToken, 16);
  for (const [i, digest] of [record.space, record.root, record.key, record.parent].entries())
    header.write(digest, 56 + 32 * i, 32, "hex");
  for (const [part, bytes] of record.payloadBytes.entries()) {
    header.writeUInt32LE(bytes, fixedBytes + partBytes * part);
    header.writeUInt32LE(0, fixedBytes + partBytes * part + 4);
    writeChecksum(header, fixedBytes + partBytes * part + 8, checksums?.[part] ?? 0n);
  }
  header.set(tokenBytes(record.tokens), fixedBytes + partBytes * record.payloadBytes.length);
  into.fill(0, headerBytes, padded(headerBytes));
  placeHeader(header, place, history);
  return header;
}

/**
 * Computes the checksums of payloads that are about to be written and writes them into their headers.
 *
 * @param pieces as they will lie in the region, all whole pages
 * @param headers which of them are headers to complete; each one's payloads follow it, by part, without those of 0 bytes
 */
export function completeHeaders(pieces: readonly Uint8Array[], headers: readonly number[]): void {
  for (const index of headers) {
    const { buffer, byteOffset, length } = pieces[index]!; // named by the caller
    const header = Buffer.from(buffer, byteOffset, length);
    let next = index + 1;
    for (let part = 0; part < header.readUInt16LE(6); part += 1) {
      const at = fixedBytes + partBytes * part;
      const leaves = header.readUInt32LE(at) === 0 ? [] : leavesOf(pieces[next++]!); // as many as have bytes
      writeChecksum(header, at + 8, rootOf(leaves));
    }
    const end = header.readUInt32LE(8) - checksumBytes;
    writeChecksum(header, end, xxh3.xxh128(header.subarray(0, end)));
  }
}

/** The payloads' checksums as a header that is whole says them. */
export function checksumsIn(header: Buffer): bigint[] {
  return Array.from({ length: header.readUInt16LE(6) }, (_, part) =>
    readChecksum(header, fixedBytes + partBytes * part + 8),
  );
}

/** Gives a header, as it was read elsewhere, its new place. */
export function placeHeader(header: Buffer, place: RecordPlace, history: RecordHistory): void {
  header.writeUInt32LE(Math.min(history.reads, 0xffff_ffff), 20);
  header.writeBigUInt64LE(BigInt(history.writtenAt), 24);
  header.writeBigUInt64LE(BigInt(place.offset), 32);
  header.set(place.nonce, 40);
  const end = header.readUInt32LE(8) - checksumBytes;
  writeChecksum(header, end, xxh3.xxh128(header.subarray(0, end)));
}

/**
 * The length of the header at the start of `bytes` (two pages or fewer may not hold it all), or undefined when none
 * begins here that belongs to this place.
 */
export function headerBytesAt(bytes: Buffer, place: RecordPlace): number | undefined {
  if (bytes.length < fixedBytes || bytes.readUInt32LE(0) !== magic) return undefined;
  const parts = bytes.readUInt16LE(6);
  const headerBytes = bytes.readUInt32LE(8);
  const tokenCount = bytes.readUInt32LE(12);
  const plausible =
    bytes.readUInt16LE(4) === formatVersion &&
    parts >= 1 &&
    parts <= maxParts &&
    tokenCount >= 1 &&
    tokenCount <= maxTokens &&
    headerBytes === fixedBytes + partBytes * parts + 4 * tokenCount + checksumBytes;
  const isHere =
    bytes.readBigUInt64LE(32) === BigInt(place.offset) &&
    bytes.compare(place.nonce, 0, nonceBytes, 40, 40 + nonceBytes) === 0;
  return plausible && isHere ? headerBytes : undefined;
}

/** Decodes a whole header, or says that it does not match its checksum or its place. */
export function decodeHeader(bytes: Buffer, place: RecordPlace): DecodedRecord | "damaged" {
  const headerBytes = headerBytesAt(bytes, place);
  if (headerBytes === undefined || bytes.length < headerBytes) return "damaged";
  const end = headerBytes - checksumBytes;
  if (xxh3.xxh128(bytes.subarray(0, end)) !== readChecksum(bytes, end)) return "damaged";
  const digest = (i: number) => bytes.toString("hex", 56 + 32 * i, 88 + 32 * i);
  const parts = bytes.readUInt16LE(6);
  const payloadBytes: number[] = [];
  const checksums: bigint[] = [];
  for (let part = 0; part < parts; part += 1) {
    payloadBytes.push(bytes.readUInt32LE(fixedBytes + partBytes * part));
    checksums.push(readChecksum(bytes, fixedBytes + partBytes * part + 8));
  }
  const record: ChunkRecord = {
    space: digest(0) as SpaceId,
    root: digest(1) as RootKey,
    key: digest(2) as ChunkKey,
    parent: digest(3) as ChunkKey | RootKey,
    firstToken: bytes.readUInt32LE(16),
    tokens: tokensFromBytes(bytes.subarray(fixedBytes + partBytes * parts, end)),
    payloadBytes,
  };
  const writtenAt = Number(bytes.readBigUInt64LE(24));
  return { record, checksums, headerBytes, writtenAt, reads: bytes.readUInt32LE(20) };
}

export function writeChecksum(into: Buffer, at: number, checksum: bigint): void {
  into.writeBigUInt64LE(checksum & 0xffff_ffff_ffff_ffffn, at);
  into.writeBigUInt64LE(checksum >> 64n, at + 8);
}

export function readChecksum(from: Buffer, at: number): bigint {
  return from.readBigUInt64LE(at) | (from.readBigUInt64LE(at + 8) << 64n);
}
