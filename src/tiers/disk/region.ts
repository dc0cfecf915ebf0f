/**
 * A region: one file of the log, 64 to 256 MiB, whose room is reserved when it is begun.
 *
 *     0        header            magic, version, number, nonce, checksum
 *     4096     records           one after the other, each at a multiple of 4096
 *     …        contents          written when the region is full, or at close: see contents.ts
 *     end-4096 trailer           of the contents
 *
 * The header, one page:
 *
 *     0     8  magic "RPREGION"
 *     8     4  format version (2), little-endian
 *     12    4  zero
 *     16    8  number, as in the file's name
 *     24   16  nonce: random, in every record and in the contents of this region and in no other
 *     40    8  begun at, ms since 1970
 *     …        zeros
 *     4080 16  xxh3-128 of everything before
 *
 * A region of another version, and a segment of format 1, is left as it is and gives its room back when room is needed.
 */
import { xxh3 } from "@node-rs/xxhash";
import { randomBytes } from "node:crypto";
import { pageBytes } from "../../pages.ts";
import type { ContentsBuilder } from "./contents.ts";
import type { DiskFile } from "./files.ts";
import { checksumBytes, formatVersion, nonceBytes, readChecksum, writeChecksum } from "./record.ts";

const magic = Buffer.from("RPREGION");
const checksumAt = pageBytes - checksumBytes;

export interface Region {
  readonly number: number;
  readonly path: string;
  /** Its column entry in the record table. */
  readonly slot: number;
  file: DiskFile | undefined;
  nonce: Buffer;
  /** End of the last record. */
  end: number;
  /** Bytes the file takes, reserved room included. */
  fileBytes: number;
  /**
   *     unread ──recovery──► sealed          unread ──recovery──► foreign
   *     open ──full, closed──► sealed
   */
  state: "unread" | "open" | "sealed" | "foreign";
  /** What will be written when the region is sealed; undefined when it is. */
  contents: ContentsBuilder | undefined;
  /** Records of it were copied elsewhere: the copies must be on the drive before its file goes. */
  hasCopies: boolean;
  /** Writes under way. */
  readonly writes: Set<Promise<void>>;
  /** The writing of its contents, while that is under way. */
  sealing: Promise<void> | undefined;
  /** Its removal, once that has begun. */
  removal: Promise<void> | undefined;
}

export function newNonce(): Buffer {
  return randomBytes(nonceBytes);
}

export function encodeRegionHeader(into: Buffer, region: { readonly number: number; readonly nonce: Buffer }): void {
  into.fill(0);
  into.set(magic, 0);
  into.writeUInt32LE(formatVersion, 8);
  into.writeBigUInt64LE(BigInt(region.number), 16);
  into.set(region.nonce, 24);
  into.writeBigUInt64LE(BigInt(Date.now()), 40);
  writeChecksum(into, checksumAt, xxh3.xxh128(into.subarray(0, checksumAt)));
}

/** The region's nonce; "foreign" for what another version (or nobody) wrote, "damaged" for a header that once was ours. */
export function decodeRegionHeader(page: Buffer): Buffer | "foreign" | "damaged" {
  const isOurs = page.subarray(0, magic.length).equals(magic);
  const isWhole = xxh3.xxh128(page.subarray(0, checksumAt)) === readChecksum(page, checksumAt);
  if (isWhole && isOurs && page.readUInt32LE(8) === formatVersion)
    return Buffer.from(page.subarray(24, 24 + nonceBytes));
  // A whole header of another version says so; one that is damaged in its version only does not match its checksum.
  return isOurs && !isWhole && page.readUInt32LE(8) === formatVersion ? "damaged" : "foreign";
}

export function regionName(number: number): string {
  return `${String(number).padStart(10, "0")}.region`;
}

/** No log gets there. A name beyond is nobody's, and must not make those that follow one digit longer. */
const numberLimit = 9_000_000_000;

/** What a file of the directory is, by its name; undefined when it is none of the log's. */
export function parseName(name: string): { readonly number: number; readonly isRegion: boolean } | undefined {
  const match = /^(\d{10})\.(region|segment)$/.exec(name);
  if (match === null || Number(match[1]) >= numberLimit) return undefined;
  return { number: Number(match[1]), isRegion: match[2] === "region" };
}

/** Whether a name looks like one of the log's and is none. */
export function isOddName(name: string): boolean {
  return /\.(region|segment)$/.test(name) && parseName(name) === undefined;
}
