/**
 * The contents of a region: what a start reads instead of every record's header. It is written behind the last record
 * when a region is full or its tier is closed; a region without it is scanned.
 *
 *     columns   28·N bytes   per record: first page, pages, header bytes, first token, number of its space in the list,
 *                            the first 8 bytes of its key
 *               32·S bytes   the spaces                                                   zeros to a multiple of 4096
 *     headers   the records' headers without their padding, one after the other           zeros to a multiple of 4096
 *     trailer   4096 bytes   the last page of the file
 *                  0     8  magic "RPCONTNT"
 *                  8     4  format version (3)
 *                 12     4  records, N
 *                 16     4  spaces, S
 *                 20     4  zero
 *                 24     8  offset of the columns
 *                 32     8  bytes of the headers, padding not counted
 *                 40    16  nonce of the region
 *                 56    16  checksum of the padded columns
 *                 72    16  checksum of the padded headers
 *               4080    16  xxh3-128 of everything before
 *
 * Identities and tokens are streamed from the headers when a guest opens their space; until all have come, those of a text
 * that is asked for are found by the beginnings of their keys. The nonce ties the contents to their region: those of another
 * region, or of an older one under the same name, are ignored.
 */
import { xxh3 } from "@node-rs/xxhash";
import type { SpaceId } from "../../identity/space.ts";
import { alignedBuffer } from "./aligned.ts";
import { padded, pageBytes } from "../../pages.ts";
import { leavesOf, rootOf } from "../payload-checksum.ts";
import { checksumBytes, keyAt, nonceBytes, readChecksum, writeChecksum } from "./record.ts";

const magic = Buffer.from("RPCONTNT");
const formatVersion = 3;
const checksumAt = pageBytes - checksumBytes;
const spaceBytes = 32;

/** Values per record in the columns. */
export const columnCount = 7;
/** Where the two of them are that begin its key. */
export const keyColumn = 5;

export interface ContentsEntry {
  readonly offset: number;
  readonly totalBytes: number;
  readonly firstToken: number;
  readonly space: SpaceId;
  /** Without padding. */
  readonly header: Uint8Array;
}

/**
 * Collects the contents of a region while it is written. Room is reserved when a record gets its place, the record is added
 * when it is written.
 */
export class ContentsBuilder {
  readonly #entries: ContentsEntry[] = [];
  readonly #spaces = new Map<SpaceId, number>();
  #reserved = 0;
  #reservedHeaderBytes = 0;
  #headerBytes = 0;

  /** Bytes of the contents when one more record is reserved. */
  bytesWith(headerBytes: number): number {
    const spaces = this.#spaces.size + 1; // it may be of a new one
    return contentsBytes(this.#reserved + 1, spaces, this.#reservedHeaderBytes + headerBytes);
  }

  reserve(space: SpaceId, headerBytes: number): void {
    this.#reserved += 1;
    this.#reservedHeaderBytes += headerBytes;
    if (!this.#spaces.has(space)) this.#spaces.set(space, this.#spaces.size);
  }

  /** Adds a reserved record. */
  add(entry: ContentsEntry): void {
    this.#entries.push(entry);
    this.#headerBytes += entry.header.length;
  }

  /** The contents as they lie in the file from `offset` on. */
  encode(offset: number, nonce: Uint8Array): Buffer {
    const count = this.#entries.length;
    const columnsBytes = padded(columnCount * 4 * count + spaceBytes * this.#spaces.size);
    const headersBytes = padded(this.#headerBytes);
    const all = alignedBuffer(columnsBytes + headersBytes + pageBytes).fill(0);
    let headerAt = columnsBytes;
    for (const [i, entry] of this.#entries.entries()) {
      const values = [
        entry.offset / pageBytes,
        entry.totalBytes / pageBytes,
        entry.header.length,
        entry.firstToken,
        this.#spaces.get(entry.space)!, // reserved
        ...keyBeginning(entry.header.subarray(keyAt)),
      ];
      for (const [column, value] of values.entries()) all.writeUInt32LE(value, 4 * (columnCount * i + column));
      all.set(entry.header, headerAt);
      headerAt += entry.header.length;
    }
    for (const [space, i] of this.#spaces)
      all.write(space, columnCount * 4 * count + spaceBytes * i, spaceBytes, "hex");

    const trailer = all.subarray(columnsBytes + headersBytes);
    trailer.set(magic, 0);
    trailer.writeUInt32LE(formatVersion, 8);
    trailer.writeUInt32LE(count, 12);
    trailer.writeUInt32LE(this.#spaces.size, 16);
    trailer.writeBigUInt64LE(BigInt(offset), 24);
    trailer.writeBigUInt64LE(BigInt(this.#headerBytes), 32);
    trailer.set(nonce, 40);
    writeChecksum(trailer, 56, rootOf(leavesOf(all.subarray(0, columnsBytes))));
    writeChecksum(trailer, 72, rootOf(leavesOf(all.subarray(columnsBytes, columnsBytes + headersBytes))));
    writeChecksum(trailer, checksumAt, xxh3.xxh128(trailer.subarray(0, checksumAt)));
    return all;
  }
}

/** The first 8 bytes of a key, as they stand in the columns. */
export function keyBeginning(key: Uint8Array): readonly [number, number] {
  const bytes = Buffer.from(key.buffer, key.byteOffset, 8);
  return [bytes.readUInt32LE(0), bytes.readUInt32LE(4)];
}

export interface Trailer {
  readonly count: number;
  readonly spaceCount: number;
  readonly columnsOffset: number;
  readonly columnsBytes: number;
  readonly columnsChecksum: bigint;
  readonly headersOffset: number;
  readonly headersBytes: number;
  readonly headersChecksum: bigint;
  readonly nonce: Buffer;
}

/** The trailer in the last page of a file of `fileBytes`, or undefined when there is none. */
export function decodeTrailer(page: Buffer, fileBytes: number): Trailer | undefined {
  if (!page.subarray(0, magic.length).equals(magic) || page.readUInt32LE(8) !== formatVersion) return undefined;
  if (xxh3.xxh128(page.subarray(0, checksumAt)) !== readChecksum(page, checksumAt)) return undefined;
  const count = page.readUInt32LE(12);
  const spaceCount = page.readUInt32LE(16);
  const columnsOffset = Number(page.readBigUInt64LE(24));
  const columnsBytes = padded(columnCount * 4 * count + spaceBytes * spaceCount);
  const headersOffset = columnsOffset + columnsBytes;
  const headersBytes = padded(Number(page.readBigUInt64LE(32)));
  if (headersOffset + headersBytes + pageBytes !== fileBytes) return undefined;
  return {
    count,
    spaceCount,
    columnsOffset,
    columnsBytes,
    columnsChecksum: readChecksum(page, 56),
    headersOffset,
    headersBytes,
    headersChecksum: readChecksum(page, 72),
    nonce: Buffer.from(page.subarray(40, 40 + nonceBytes)),
  };
}

/** The columns, {@link columnCount} numbers a record, and the spaces that their last numbers mean. */
export function decodeColumns(bytes: Buffer, trailer: Trailer): { columns: Uint32Array; spaces: SpaceId[] } {
  const columnBytes = columnCount * 4 * trailer.count;
  const columns = new Uint32Array(bytes.buffer, bytes.byteOffset, columnCount * trailer.count); // page-aligned
  const spaces = Array.from({ length: trailer.spaceCount }, (_, i) => {
    const from = columnBytes + spaceBytes * i;
    return bytes.toString("hex", from, from + spaceBytes) as SpaceId;
  });
  return { columns, spaces };
}

/** Bytes of the contents of a region with one record. */
export function leastContentsBytes(headerBytes: number): number {
  return contentsBytes(1, 1, headerBytes);
}

function contentsBytes(count: number, spaces: number, headerBytes: number): number {
  return padded(columnCount * 4 * count + spaceBytes * spaces) + padded(headerBytes) + pageBytes;
}
