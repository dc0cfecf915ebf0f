/**
 * A segment: one file of the log.
 *
 *     0     8  magic "RPSEGMNT"
 *     8     4  format version (1), little-endian
 *           …  zeros to 4096
 *     4096  …  records, each at a multiple of 4096
 *
 * A segment of another version is left as it is and gives its room back when room is needed.
 */
import type { RecordId } from "../../tier.ts";
import type { DiskFile } from "./files.ts";
import { decodeHeader, formatVersion, pageBytes, type DecodedRecord } from "./record.ts";

const magic = Buffer.from("RPSEGMNT");
const scanBytes = 16 * 1024;
const resyncBytes = 1024 * 1024;

export interface Segment {
  readonly number: number;
  readonly path: string;
  readonly file: DiskFile;
  /** Bytes in the file that count. */
  bytes: number;
  /** Bytes it may grow to. */
  readonly limitBytes: number;
  readonly records: Set<RecordId>;
  /** Written by another version: nothing in it is ours to read. */
  readonly foreign: boolean;
  /** Its removal, once that has begun. */
  removal: Promise<void> | undefined;
}

export function segmentHeader(): Buffer {
  const header = Buffer.alloc(pageBytes);
  header.set(magic, 0);
  header.writeUInt32LE(formatVersion, magic.length);
  return header;
}

export function segmentName(number: number): string {
  return `${String(number).padStart(10, "0")}.segment`;
}

/** The number in a segment's file name, or undefined when it is no segment's. */
export function segmentNumber(name: string): number | undefined {
  const match = /^(\d{10})\.segment$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** True when the segment is of this version. */
export async function isReadable(file: DiskFile): Promise<boolean> {
  const header = Buffer.alloc(pageBytes);
  if ((await file.read(header, 0)) < pageBytes) return false;
  return header.subarray(0, magic.length).equals(magic) && header.readUInt32LE(magic.length) === formatVersion;
}

export type ScanStep =
  | { readonly kind: "record"; readonly offset: number; readonly decoded: DecodedRecord }
  /** One run of pages that should hold a record and hold none. */
  | { readonly kind: "damage" };

/**
 * Every record whose header is whole, in order. After damage it goes on at the next page that holds a header. A record
 * that the file ends within is the torn end of a last write and is left out.
 */
export async function* scanSegment(file: DiskFile, fileBytes: number): AsyncGenerator<ScanStep, void, void> {
  const window = new Window(file);
  let inDamage = false;
  for (let offset = pageBytes; offset + pageBytes <= fileBytes;) {
    const decoded = await decodeAt(window, offset, fileBytes, inDamage);
    if (decoded === "torn") return;
    if (decoded === "damaged") {
      if (!inDamage) yield { kind: "damage" };
      inDamage = true;
      offset += pageBytes;
      continue;
    }
    inDamage = false;
    yield { kind: "record", offset, decoded };
    offset += decoded.totalBytes;
  }
}

async function decodeAt(
  window: Window,
  offset: number,
  fileBytes: number,
  inDamage: boolean,
): Promise<DecodedRecord | "damaged" | "torn"> {
  let decoded = decodeHeader(await window.at(offset, pageBytes, inDamage ? resyncBytes : scanBytes));
  if (typeof decoded === "object" && "neededBytes" in decoded) {
    if (offset + decoded.neededBytes > fileBytes) return inDamage ? "damaged" : "torn";
    decoded = decodeHeader(await window.at(offset, decoded.neededBytes, scanBytes));
  }
  if (decoded === "damaged" || "neededBytes" in decoded) return "damaged";
  if (offset + decoded.totalBytes > fileBytes) return inDamage ? "damaged" : "torn";
  return decoded;
}

/** Reads ahead, so that looking at page after page is not a read each. */
class Window {
  readonly #file: DiskFile;
  #start = 0;
  #bytes = Buffer.alloc(0);

  constructor(file: DiskFile) {
    this.#file = file;
  }

  async at(offset: number, bytes: number, aheadBytes: number): Promise<Buffer> {
    const from = offset - this.#start;
    if (from < 0 || from + bytes > this.#bytes.length) {
      const buffer = Buffer.alloc(Math.max(bytes, aheadBytes));
      this.#bytes = buffer.subarray(0, await this.#file.read(buffer, offset));
      this.#start = offset;
    }
    return this.#bytes.subarray(offset - this.#start, offset - this.#start + Math.max(bytes, pageBytes));
  }
}
