/**
 * Gives back the room of records that nobody can reach any more: what is live of regions that are a quarter garbage or more
 * is written anew, and their files go.
 *
 *     sealed, the emptiest first ──► read, 2 MiB at a time ──► writer's queue ──► open region ──► flushed ──► file removed
 *                                     loads go first             makes no room for it: nothing live is evicted
 *
 * A region's file goes when all its live records have been copied and the copies are on the drive, so at every moment each
 * record lies in one place or in both. What is moved counts as written last, and will be evicted accordingly later.
 */
import type { RecordId } from "../../tier.ts";
import { pageBytes } from "../../pages.ts";
import type { Drive } from "./drive.ts";
import { readWholeRecord, type WholeRecord } from "./reader.ts";
import type { RecordPosition, RecordTable } from "./record-table.ts";
import type { Region } from "./region.ts";
import type { Writer } from "./writer.ts";

export interface CompactionParts {
  readonly drive: Drive;
  readonly table: RecordTable;
  readonly writer: Writer;
  /** True when it is to end before the next batch. */
  readonly isOver: () => boolean;
  /** A record did not match its checksums. */
  readonly onDamaged: (id: RecordId) => void;
}

export interface DriveCompaction {
  /** Bytes by which the files became smaller. */
  readonly freedBytes: number;
  /** Bytes of live records that were written anew. */
  readonly movedBytes: number;
}

/** Below it more than three bytes are written for each that is won. */
const leastGarbage = 1 / 4;
const batchBytes = 2 * 1024 * 1024;

/** @throws the file system's errors; what was done until then stays done */
export async function compactDrive(parts: CompactionParts): Promise<DriveCompaction> {
  const { drive, table } = parts;
  const done = { freedBytes: 0, movedBytes: 0 };
  const emptiest = drive
    .regions()
    .filter((region) => region.state === "sealed" && 1 - liveShare(region, table) >= leastGarbage)
    .sort((a, b) => liveShare(a, table) - liveShare(b, table));
  for (const region of emptiest) {
    const { bytes, isEmpty } = await moveLive(region, parts);
    done.movedBytes += bytes;
    done.freedBytes -= bytes;
    if (!isEmpty) break; // told to end, or no room for copies
    const { fileBytes } = region;
    const isGone = region.removal !== undefined; // evicted meanwhile: not by this
    await drive.remove(region);
    if (!isGone) done.freedBytes += fileBytes;
  }
  return { ...done, freedBytes: Math.max(0, done.freedBytes) };
}

function liveShare({ slot, end }: Region, table: RecordTable): number {
  return table.liveBytesOf(slot) / Math.max(1, end - pageBytes);
}

async function moveLive(region: Region, parts: CompactionParts): Promise<{ bytes: number; isEmpty: boolean }> {
  const { table, writer } = parts;
  region.hasCopies = true;
  const ids = [...table.of(region.slot)].toReversed(); // as they were written: parents first
  let bytes = 0;
  while (ids.length > 0 && !parts.isOver()) {
    const batch = await readBatch(region, ids, parts);
    const moved = await Promise.all(batch.map(({ id, whole, totalBytes }) => writer.move(id, whole, totalBytes)));
    for (const one of moved) if (one !== "full") bytes += one;
    if (moved.includes("full")) break;
  }
  return { bytes, isEmpty: table.liveOf(region.slot) === 0 };
}

interface Readable {
  readonly id: RecordId;
  readonly whole: WholeRecord;
  readonly totalBytes: number;
}

/** Takes the next records from `ids` and reads them. */
async function readBatch(region: Region, ids: RecordId[], parts: CompactionParts): Promise<Readable[]> {
  const { drive, table } = parts;
  const batch: Readable[] = [];
  let bytes = 0;
  while (ids.length > 0 && bytes < batchBytes) {
    await drive.traffic.turn();
    const id = ids.shift()!; // there is one
    const position = table.find(id);
    if (position === undefined) continue;
    const whole = await readUnlessGone(region, id, position, parts);
    if (whole === undefined) continue;
    bytes += position.totalBytes;
    batch.push({ id, whole, totalBytes: position.totalBytes });
  }
  return batch;
}

async function readUnlessGone(
  region: Region,
  id: RecordId,
  position: RecordPosition,
  { table, onDamaged }: CompactionParts,
): Promise<WholeRecord | undefined> {
  try {
    const whole = await readWholeRecord({ file: region.file!, nonce: region.nonce }, position); // read at start
    if (whole !== "damaged") return whole;
    if (table.has(id)) onDamaged(id);
  } catch (error) {
    if (table.has(id)) throw error; // else its region went while it was read
  }
  return undefined;
}
