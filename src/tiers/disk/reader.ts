/**
 * Reads a record, or some parts of it, and verifies what it reads: that the header belongs to this place, that it is the
 * chunk that was asked for, and that every payload matches its checksum. Several calls are under way for a large one.
 *
 *     header │ part 0 │ part 1 │ part 2 │ part 3 │ part 4        wanted: parts 0, 2 and 4
 *     └── at once ──┘            └ then ┘          └ at once      the lengths of what is skipped stand in the header
 *
 * A part that is not wanted is not read. What lies between two such parts costs a second round; there is none where only
 * the first parts or the last are wanted.
 */
import type { ChunkKey } from "../../identity/keys.ts";
import { assert } from "../../errors.ts";
import type { PartMemory } from "../../tier.ts";
import { alignedBuffer } from "./aligned.ts";
import { padded, pageBytes } from "../../pages.ts";
import { leafBytes, rootOf } from "../payload-checksum.ts";
import type { DiskFile } from "./files.ts";
import { decodeHeader, recordBytes, type DecodedRecord } from "./record.ts";
import type { RecordPosition } from "./record-table.ts";

/** Bytes per call: large enough for a fast drive, small enough that a record of some MiB is several. */
const callBytes = 8 * leafBytes;

/**
 * @param into each as long as its payload, or as the payload padded to whole pages: then without a copy
 * @param key the chunk it must be; any when undefined
 * @returns `"damaged"` when anything does not match; what is in `into` must not be used then
 * @throws the file system's errors. However it ends, nothing touches `into` any more.
 */
export async function readRecord(
  from: { readonly file: DiskFile; readonly nonce: Uint8Array },
  position: RecordPosition,
  into: PartMemory,
  key: ChunkKey | undefined,
): Promise<{ readonly decoded: DecodedRecord; readonly header: Buffer } | "damaged"> {
  const pages = into.map((bytes) => bytes && (bytes.length % pageBytes === 0 ? bytes : alignedBuffer(bytes.length)));
  const answer = await readPages(from, position, pages, key);
  if (answer !== "damaged")
    for (const [part, bytes] of into.entries())
      if (bytes !== pages[part]) bytes?.set(pages[part]!.subarray(0, bytes.length)); // one for each
  return answer;
}

/** As {@link readRecord}, with memory of whole pages. */
async function readPages(
  from: { readonly file: DiskFile; readonly nonce: Uint8Array },
  position: RecordPosition,
  into: PartMemory,
  key: ChunkKey | undefined,
): ReturnType<typeof readRecord> {
  const header = alignedBuffer(position.headerBytes);
  const room = into.reduce((sum, bytes) => sum + (bytes?.length ?? 0), position.headerBytes);
  const fits = into.includes(undefined) ? room <= position.totalBytes : room === position.totalBytes;
  assert(fits, "memory for a record is as long as the record");
  const leaves: bigint[][] = into.map(() => []);
  const known = offsetsOf(
    into.map((bytes) => bytes?.length),
    position,
  );
  const first = into.flatMap((_, part) => pieceOf(into, known, part));
  const start = { bytes: header, part: headerPart, at: position.offset };
  if ((await readPieces(from.file, [start, ...first], leaves)) === "short") return "damaged";
  const decoded = decodeHeader(header, { nonce: from.nonce, offset: position.offset });
  if (decoded === "damaged" || padded(decoded.headerBytes) !== position.headerBytes) return "damaged";
  const { record, checksums } = decoded;
  const isAsked =
    (key === undefined || record.key === key) &&
    recordBytes(record) === position.totalBytes &&
    record.payloadBytes.length === into.length &&
    into.every((bytes, part) => bytes === undefined || bytes.length === padded(record.payloadBytes[part]!)); // as many
  if (!isAsked) return "damaged";
  const all = offsetsOf(record.payloadBytes.map(padded), position);
  const rest = into.flatMap((_, part) => (known[part] === undefined ? pieceOf(into, all, part) : []));
  if ((await readPieces(from.file, rest, leaves)) === "short") return "damaged";
  const matches = into.every((bytes, part) => bytes === undefined || checksums[part] === rootOf(leaves[part]!)); // as many
  return matches ? { decoded, header } : "damaged";
}

/** Where the parts begin, as far as lengths tell: up to the first whose length is not known, and behind the last such. */
function offsetsOf(lengths: readonly (number | undefined)[], position: RecordPosition): (number | undefined)[] {
  const offsets = lengths.map((): number | undefined => undefined);
  let at = position.offset + position.headerBytes;
  for (const [part, length] of lengths.entries()) {
    if (length === undefined) break;
    offsets[part] = at;
    at += length;
  }
  let end = position.offset + position.totalBytes;
  for (const [part, length] of [...lengths.entries()].toReversed()) {
    if (length === undefined) break;
    end -= length;
    offsets[part] = end;
  }
  return offsets;
}

const headerPart = -1;

interface Piece {
  readonly bytes: Uint8Array;
  readonly part: number;
  /** Where it lies in the file. */
  readonly at: number;
}

/** A part as one piece; none when it is not wanted, is empty, or begins nobody knows where. */
function pieceOf(into: PartMemory, offsets: readonly (number | undefined)[], part: number): Piece[] {
  const [bytes, at] = [into[part], offsets[part]];
  return bytes === undefined || bytes.length === 0 || at === undefined ? [] : [{ bytes, part, at }];
}

/** Fills the pieces and adds the leaves of each to those of its part. */
async function readPieces(
  file: DiskFile,
  pieces: readonly Piece[],
  leaves: readonly bigint[][],
): Promise<"whole" | "short"> {
  const calls = callsFor(pieces);
  const answers = calls.map((call) =>
    file.read(
      call.map(({ bytes }) => bytes),
      call[0]!.at, // none is empty
    ),
  );
  let missing = pieces.reduce((sum, { bytes }) => sum + bytes.length, 0);
  for (const [i, answer] of (await allEnded(answers)).entries()) {
    missing -= answer.bytes;
    for (const [j, { part }] of calls[i]!.entries()) if (part !== headerPart) leaves[part]!.push(...answer.leaves[j]!); // as asked
  }
  return missing === 0 ? "whole" : "short";
}

/**
 * Like Promise.all, but fails when the last has ended: whoever hears of it gives the memory to others, and a call that is
 * under way would write into what is theirs.
 */
async function allEnded<T>(calls: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(calls);
  return Promise.all(calls);
}

/** What to read with one call each: what lies together, payloads cut at multiples of a leaf. */
function callsFor(pieces: readonly Piece[]): Piece[][] {
  const calls: Piece[][] = [];
  let room = 0;
  let end = -1;
  for (const { bytes, part, at } of pieces) {
    for (let done = 0; done < bytes.length;) {
      if (room < leafBytes || at + done !== end) {
        calls.push([]);
        room = callBytes;
      }
      const cut = bytes.subarray(done, done + Math.floor(room / leafBytes) * leafBytes);
      calls.at(-1)!.push({ bytes: cut, part, at: at + done }); // there is one
      if (part !== headerPart) room -= cut.length;
      done += cut.length;
      end = at + done;
    }
  }
  return calls;
}

export interface WholeRecord {
  readonly decoded: DecodedRecord;
  /** Padded to whole pages. */
  readonly header: Buffer;
  /** By part, padded to whole pages. */
  readonly payloads: readonly Buffer[];
}

/** Reads a record of which only its place is known, into memory of its own. */
export async function readWholeRecord(
  from: { readonly file: DiskFile; readonly nonce: Uint8Array },
  position: RecordPosition,
): Promise<WholeRecord | "damaged"> {
  const header = alignedBuffer(position.headerBytes);
  await from.file.read([header], position.offset);
  const decoded = decodeHeader(header, { nonce: from.nonce, offset: position.offset });
  if (decoded === "damaged") return "damaged";
  const sizes = decoded.record.payloadBytes.map(padded);
  if (sizes.reduce((sum, bytes) => sum + bytes, padded(decoded.headerBytes)) !== position.totalBytes) return "damaged";
  const payloads = sizes.map(alignedBuffer);
  const answer = await readRecord(from, position, payloads, undefined);
  return answer === "damaged" ? "damaged" : { ...answer, payloads };
}
