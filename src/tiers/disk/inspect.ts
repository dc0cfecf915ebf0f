/**
 * What lies in a directory of the disk tier, read without touching it: beside a running server, or when there is none.
 *
 * Sealed regions are read by their contents, open ones record by record; payloads are not read. A region that goes while it
 * is looked at is left out. Dropped records are counted until their region goes, since only the running tier knows them.
 */
import { join } from "node:path";
import type { SpaceId } from "../../cache/space.ts";
import { describe } from "../../errors.ts";
import { alignedBuffer, pageBytes } from "./aligned.ts";
import { columnCount, decodeColumns, decodeTrailer } from "./contents.ts";
import { nodeFiles, type DiskFile, type DiskFiles } from "./files.ts";
import { decodeHeader, recordBytes, type DecodedRecord } from "./record.ts";
import { decodeRegionHeader, parseName } from "./region.ts";
import { scanRegion } from "./scan.ts";

export interface SpaceOnDisk {
  readonly space: SpaceId;
  chunks: number;
  tokens: number;
  /** Of the records, with their headers and padding. */
  bytes: number;
  /** When its oldest and newest chunk were written. */
  oldest: Date;
  newest: Date;
  /** Times its chunks had been read when they were last rewritten; a chunk that never was counts 0. */
  reads: number;
}

export interface RegionOnDisk {
  readonly name: string;
  readonly bytes: number;
  /** `open` is written, or was when its server died; `foreign` is of another version; `unreadable` failed. */
  readonly state: "sealed" | "open" | "foreign" | "unreadable";
  readonly chunks: number;
  readonly problem: string | undefined;
}

export interface DiskContents {
  readonly directory: string;
  /** Of all files. */
  readonly bytes: number;
  /** The largest first. */
  readonly spaces: readonly SpaceOnDisk[];
  /** The oldest first. */
  readonly regions: readonly RegionOnDisk[];
}

/** @throws the file system's errors when the directory cannot be listed */
export async function inspectDisk(directory: string, files: DiskFiles = nodeFiles): Promise<DiskContents> {
  const spaces = new Map<SpaceId, SpaceOnDisk>();
  const regions: RegionOnDisk[] = [];
  for (const name of (await files.list(directory)).sort()) {
    const parsed = parseName(name);
    if (parsed === undefined) continue;
    const region = await inspectRegion(join(directory, name), name, parsed.isRegion, { files, spaces });
    if (region !== undefined) regions.push(region);
  }
  return {
    directory,
    bytes: regions.reduce((sum, { bytes }) => sum + bytes, 0),
    spaces: [...spaces.values()].sort((a, b) => b.bytes - a.bytes),
    regions,
  };
}

interface Inspection {
  readonly files: DiskFiles;
  readonly spaces: Map<SpaceId, SpaceOnDisk>;
}

/** @returns undefined when the region is gone */
async function inspectRegion(
  path: string,
  name: string,
  isRegion: boolean,
  { files, spaces }: Inspection,
): Promise<RegionOnDisk | undefined> {
  let bytes = 0;
  let file: DiskFile | undefined;
  try {
    bytes = await files.size(path);
    const state = { name, bytes, chunks: 0, problem: undefined };
    if (!isRegion || bytes < 2 * pageBytes) return { ...state, state: "foreign" };
    file = await files.openReadOnly(path);
    const nonce = decodeRegionHeader(await readPages(file, 0, pageBytes));
    if (nonce === "foreign") return { ...state, state: "foreign" };
    if (nonce === "damaged")
      return { ...state, state: "unreadable", problem: "its header does not match its checksum" };
    const { isSealed, records } = await recordsOf(file, { nonce, fileBytes: bytes });
    for (const record of records) count(spaces, record);
    return { ...state, state: isSealed ? "sealed" : "open", chunks: records.length };
  } catch (error) {
    const isThere = (await files.list(join(path, ".."))).includes(name);
    return isThere ? { name, bytes, state: "unreadable", chunks: 0, problem: describe(error) } : undefined;
  } finally {
    await file?.close();
  }
}

async function recordsOf(
  file: DiskFile,
  region: { readonly nonce: Buffer; readonly fileBytes: number },
): Promise<{ isSealed: boolean; records: DecodedRecord[] }> {
  const last = Math.floor(region.fileBytes / pageBytes) * pageBytes - pageBytes;
  const trailer = decodeTrailer(await readPages(file, last, pageBytes), region.fileBytes);
  const records: DecodedRecord[] = [];
  if (trailer?.nonce.equals(region.nonce) !== true) {
    for await (const { decoded } of scanRegion(file, region)) records.push(decoded);
    return { isSealed: false, records };
  }
  const { columns } = decodeColumns(await readPages(file, trailer.columnsOffset, trailer.columnsBytes), trailer);
  const headers = await readPages(file, trailer.headersOffset, trailer.headersBytes);
  let at = 0;
  for (let i = 0; i < trailer.count; i += 1) {
    const header = headers.subarray(at, (at += columns[columnCount * i + 2]!)); // five values for each
    const decoded = decodeHeader(header, { nonce: region.nonce, offset: columns[columnCount * i]! * pageBytes });
    if (decoded !== "damaged") records.push(decoded);
  }
  return { isSealed: true, records };
}

function count(spaces: Map<SpaceId, SpaceOnDisk>, { record, writtenAt, reads }: DecodedRecord): void {
  const date = new Date(writtenAt);
  let space = spaces.get(record.space);
  if (space === undefined) {
    space = { space: record.space, chunks: 0, tokens: 0, bytes: 0, oldest: date, newest: date, reads: 0 };
    spaces.set(record.space, space);
  }
  space.chunks += 1;
  space.tokens += record.tokens.length;
  space.bytes += recordBytes(record);
  space.reads += reads;
  if (date < space.oldest) space.oldest = date;
  if (date > space.newest) space.newest = date;
}

async function readPages(file: DiskFile, position: number, bytes: number): Promise<Buffer> {
  const pages = alignedBuffer(bytes).fill(0);
  await file.read([pages], position);
  return pages;
}
