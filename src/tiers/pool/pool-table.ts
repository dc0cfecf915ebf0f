/**
 * The table at the end of the pool's file: whose pool it is, how its extents are cut, and which spaces its notes name.
 *
 *     file     │ extents: N × 64 MiB, what guests map │ notes: N × 8 MiB │ table: 2 MiB │      all of it sparse
 *
 *     table    0          header: magic, version, N × 64 MiB, id of the boot, data directory; checksum in its last 8 bytes
 *              4 KiB      per extent, 16 bytes: slot bytes (0: not in use), note bytes, bytes with pages, check
 *              1 MiB      descriptions of spaces, one after the other: length, zero, xxh3-64, JSON, padded to 8 bytes
 *
 * An extent's entry is written before its slots are handed out and is its own check. The numbers are the machine's.
 */
import { xxh3 } from "@node-rs/xxhash";
import { spaceId, type SpaceDescription, type SpaceId } from "../../identity/space.ts";
import { extentBytes } from "../../ffi/pool-mapping.ts";
import { noteBytes } from "./slot-notes.ts";

export const tableBytes = 2 * 1024 * 1024;
/** The first bytes of the table, which say whether the rest is to be read. */
export const headerBytes = 4096;
/** Notes of one extent: an eighth of it, so that a slot of 4 KiB has 512 bytes. */
export const notesBytes = extentBytes / 8;
/** 4 TiB: what the entries have room for, and less than a process can map. */
export const maxExtents = 65_000;
const magic = 0x4c505052; // "RPPL"
const formatVersion = 1;
const entryBytes = 16;
const spacesAt = 1024 * 1024;
const spacesBytes = 128 * 1024;
const spaceHeaderBytes = 16;
const maxTextBytes = 3072;

export interface PoolHeader {
  /** Of the extents. */
  readonly bytes: number;
  readonly bootId: string;
  /** The data directory whose chunks these are; "" when nobody can adopt them. */
  readonly dataDirectory: string;
}

/** How an extent is cut. */
export interface ExtentEntry {
  /** 0: not in use. */
  readonly slotBytes: number;
  readonly noteBytes: number;
  /** From its start, bytes with pages. */
  readonly allocatedBytes: number;
}

export function fileBytes(bytes: number): number {
  return bytes + (bytes / extentBytes) * notesBytes + tableBytes;
}

/** What of the table must have its pages: [from, bytes], from the table's start. */
export function usedTableRanges(bytes: number): readonly (readonly [number, number])[] {
  return [
    [0, headerBytes + entryBytes * (bytes / extentBytes)],
    [spacesAt, spacesBytes],
  ];
}

export function encodeHeader({ bytes, bootId, dataDirectory }: PoolHeader): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32LE(magic, 0);
  header.writeUInt32LE(formatVersion, 4);
  header.writeBigUInt64LE(BigInt(bytes), 8);
  const text = Buffer.from(JSON.stringify({ bootId, dataDirectory }), "utf8");
  // A path that long is nobody's: its pool is not adopted.
  if (text.length <= maxTextBytes) text.copy(header, 20);
  header.writeUInt32LE(text.length <= maxTextBytes ? text.length : 0, 16);
  header.writeBigUInt64LE(xxh3.xxh64(header.subarray(0, headerBytes - 8)), headerBytes - 8);
  return header;
}

/** @returns undefined when these bytes are no header, or one of another version. */
export function decodeHeader(header: Buffer): PoolHeader | undefined {
  if (header.length !== headerBytes || header.readUInt32LE(0) !== magic) return undefined;
  if (header.readBigUInt64LE(headerBytes - 8) !== xxh3.xxh64(header.subarray(0, headerBytes - 8))) return undefined;
  const length = header.readUInt32LE(16);
  if (header.readUInt32LE(4) !== formatVersion || length === 0) return undefined;
  // The checksum says that encodeHeader wrote it.
  const text = JSON.parse(header.toString("utf8", 20, 20 + length)) as Pick<PoolHeader, "bootId" | "dataDirectory">;
  return { bytes: Number(header.readBigUInt64LE(8)), ...text };
}

export class PoolTable {
  readonly #bytes: Buffer;
  readonly #spaces = new Map<SpaceId, SpaceDescription>();
  #spacesEnd = spacesAt;

  /** Over the mapped table; reads the spaces in it. */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#readSpaces();
  }

  extent(index: number): ExtentEntry | "damaged" {
    const at = headerBytes + entryBytes * index;
    const [slotBytes, noteBytes, allocatedBytes, check] = [0, 4, 8, 12].map((i) =>
      this.#bytes.readUInt32LE(at + i),
    ) as [number, number, number, number];
    const entry = { slotBytes, noteBytes, allocatedBytes };
    if (slotBytes === 0 && noteBytes === 0 && allocatedBytes === 0 && check === 0) return entry;
    return checkOf(entry) === check ? entry : "damaged";
  }

  /** The check goes first and comes last: an entry that was cut short is damaged, never another one. */
  writeExtent(index: number, entry: ExtentEntry): void {
    const at = headerBytes + entryBytes * index;
    this.#bytes.writeUInt32LE(~checkOf(entry) >>> 0, at + 12);
    this.#bytes.writeUInt32LE(entry.slotBytes, at);
    this.#bytes.writeUInt32LE(entry.noteBytes, at + 4);
    this.#bytes.writeUInt32LE(entry.allocatedBytes, at + 8);
    this.#bytes.writeUInt32LE(checkOf(entry), at + 12);
  }

  space(id: SpaceId): SpaceDescription | undefined {
    return this.#spaces.get(id);
  }

  /** @returns false when there is no room for one more (some 200 have). */
  addSpace(id: SpaceId, description: SpaceDescription): boolean {
    if (this.#spaces.has(id)) return true;
    const text = Buffer.from(JSON.stringify(description), "utf8");
    const at = this.#spacesEnd;
    const end = at + spaceHeaderBytes + Math.ceil(text.length / 8) * 8;
    if (end + spaceHeaderBytes > spacesAt + spacesBytes) return false;
    this.#bytes.fill(0, end, end + spaceHeaderBytes);
    text.copy(this.#bytes, at + spaceHeaderBytes);
    this.#bytes.writeBigUInt64LE(xxh3.xxh64(text), at + 8);
    this.#bytes.writeUInt32LE(text.length, at);
    this.#spacesEnd = end;
    this.#spaces.set(id, description);
    return true;
  }

  #readSpaces(): void {
    for (;;) {
      const at = this.#spacesEnd;
      const length = this.#bytes.readUInt32LE(at);
      const end = at + spaceHeaderBytes + Math.ceil(length / 8) * 8;
      if (length === 0 || end + spaceHeaderBytes > spacesAt + spacesBytes) return;
      const text = this.#bytes.subarray(at + spaceHeaderBytes, at + spaceHeaderBytes + length);
      if (this.#bytes.readBigUInt64LE(at + 8) !== xxh3.xxh64(text)) return; // torn or flipped: it and the rest are lost
      const description = JSON.parse(text.toString("utf8")) as SpaceDescription; // addSpace wrote it
      this.#spaces.set(spaceId(description), description);
      this.#spacesEnd = end;
    }
  }
}

function checkOf({ slotBytes, noteBytes, allocatedBytes }: ExtentEntry): number {
  let check = 0x9e3779b9;
  for (const value of [slotBytes, noteBytes, allocatedBytes]) {
    check = Math.imul(check ^ value, 0x85ebca6b);
    check ^= check >>> 15;
  }
  return check >>> 0;
}

/** From one note to the next. Where a note of so many tokens has no room, only the slot's state is written. */
export function strideFor(slotBytes: number, noteTokens: number): number {
  const wanted = noteBytes(noteTokens);
  const room = Math.floor(notesBytes / Math.floor(extentBytes / slotBytes));
  return wanted <= room ? wanted : noteBytes(0);
}
