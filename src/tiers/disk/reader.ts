/**
 * Reads a record and verifies all of it: that the header belongs to this place, that it is the chunk that was asked for,
 * and that every payload matches its checksum. Several calls are under way for a large one.
 */
import type { ChunkKey } from "../../cache/chunk.ts";
import { assert } from "../../errors.ts";
import { alignedBuffer, padded } from "./aligned.ts";
import { leafBytes, rootOf } from "../payload-checksum.ts";
import type { DiskFile } from "./files.ts";
import { decodeHeader, type DecodedRecord } from "./record.ts";
import type { RecordPosition } from "./record-table.ts";

/** Bytes per call: large enough for a fast drive, small enough that a record of some MiB is several. */
const callBytes = 8 * leafBytes;

/**
 * @param into for each rank, memory as long as its payload padded to whole pages
 * @param key the chunk it must be; any when undefined
 * @returns `"damaged"` when anything does not match; what is in `into` must not be used then
 * @throws the file system's errors. However it ends, nothing touches `into` any more.
 */
export async function readRecord(
  from: { readonly file: DiskFile; readonly nonce: Uint8Array },
  position: RecordPosition,
  into: readonly Uint8Array[],
  key: ChunkKey | undefined,
): Promise<{ readonly decoded: DecodedRecord; readonly header: Buffer } | "damaged"> {
  const header = alignedBuffer(position.headerBytes);
  const room = into.reduce((sum, { length }) => sum + length, position.headerBytes);
  assert(room === position.totalBytes, "memory for a record is as long as the record");
  const calls = callsFor(header, into);
  let at = position.offset;
  const answers = calls.map((call) => {
    const answer = from.file.read(
      call.map(({ bytes }) => bytes),
      at,
    );
    at += call.reduce((sum, { bytes }) => sum + bytes.length, 0);
    return answer;
  });
  const leaves: bigint[][] = into.map(() => []);
  let wholeBytes = 0;
  for (const [i, answer] of (await allEnded(answers)).entries()) {
    wholeBytes += answer.bytes;
    for (const [j, { rank }] of calls[i]!.entries()) if (rank >= 0) leaves[rank]!.push(...answer.leaves[j]!); // as asked
  }
  if (wholeBytes !== position.totalBytes) return "damaged";
  const decoded = decodeHeader(header, { nonce: from.nonce, offset: position.offset });
  if (decoded === "damaged" || padded(decoded.headerBytes) !== position.headerBytes) return "damaged";
  const { payloadBytes } = decoded.record;
  const matches =
    (key === undefined || decoded.record.key === key) &&
    payloadBytes.length === into.length &&
    payloadBytes.every((bytes, rank) => padded(bytes) === into[rank]!.length) &&
    decoded.checksums.every((checksum, rank) => checksum === rootOf(leaves[rank]!));
  return matches ? { decoded, header } : "damaged";
}

/**
 * Like Promise.all, but fails when the last has ended: whoever hears of it gives the memory to others, and a call that is
 * under way would write into what is theirs.
 */
async function allEnded<T>(calls: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(calls);
  return Promise.all(calls);
}

interface Piece {
  readonly bytes: Uint8Array;
  /** -1 for the header. */
  readonly rank: number;
}

/** What to read with one call each: payloads cut at multiples of a leaf. */
function callsFor(header: Uint8Array, into: readonly Uint8Array[]): Piece[][] {
  const calls: Piece[][] = [[{ bytes: header, rank: -1 }]];
  let room = callBytes;
  for (const [rank, payload] of into.entries()) {
    for (let at = 0; at < payload.length;) {
      if (room < leafBytes) {
        calls.push([]);
        room = callBytes;
      }
      const bytes = payload.subarray(at, at + Math.floor(room / leafBytes) * leafBytes);
      calls.at(-1)!.push({ bytes, rank }); // there is one
      room -= bytes.length;
      at += bytes.length;
    }
  }
  return calls;
}

export interface WholeRecord {
  readonly decoded: DecodedRecord;
  /** Padded to whole pages. */
  readonly header: Buffer;
  /** By rank, padded to whole pages. */
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
