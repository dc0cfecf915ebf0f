/**
 * What lies in directories of the disk tier, read without touching it: beside a running server, or when there is none.
 *
 * Sealed regions are read by their contents, open ones record by record; payloads are not read. A region that goes while it
 * is looked at is left out. Dropped records are counted until their region goes, since only the running tier knows them; a
 * chunk that is there twice counts once.
 */
import { basename, dirname, join } from "node:path";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import { codeOf, describe, RepriseError } from "../../errors.ts";
import { alignedBuffer } from "./aligned.ts";
import { pageBytes } from "../../pages.ts";
import { columnCount, decodeColumns, decodeTrailer } from "./contents.ts";
import { nodeFiles, type DiskFile, type DiskFiles } from "./files.ts";
import { readHits, type SavedHits } from "./hit-counts.ts";
import { decodeHeader, recordBytes, type DecodedRecord } from "./record.ts";
import { decodeRegionHeader, parseName } from "./region.ts";
import { scanRegion } from "./scan.ts";

export interface SpaceOnDisk {
  readonly space: SpaceId;
  /** Tenants, salts and adapters are kept apart as roots. */
  roots: number;
  /** Parts of a chunk: groups of all ranks. */
  readonly parts: number;
  chunks: number;
  tokens: number;
  /** Bytes of KV, without headers and padding. */
  payloadBytes: number;
  /** Of the records, with their headers and padding. */
  bytes: number;
  /** When its oldest and newest chunk were written. */
  oldest: Date;
  newest: Date;
  /** Times its chunks were given to engines since they were on disk. */
  hits: number;
  /** How many of them ever were. */
  chunksHit: number;
}

export interface RegionOnDisk {
  readonly path: string;
  readonly bytes: number;
  /** `open` is written, or was when its server died; `foreign` is of another version; `unreadable` failed. */
  readonly state: "sealed" | "open" | "foreign" | "unreadable";
  readonly chunks: number;
  /** Records whose headers do not match their checksums. */
  readonly damaged: number;
  readonly problem: string | undefined;
}

export interface DiskContents {
  /** Of all files. */
  readonly bytes: number;
  /** The largest first. */
  readonly spaces: readonly SpaceOnDisk[];
  /** The oldest first. */
  readonly regions: readonly RegionOnDisk[];
  /** What the hits were counted up to; undefined when none were saved. Hits of a running tier are up to a minute older. */
  readonly hitsSavedAt: Date | undefined;
}

/** A directory that is missing holds nothing. @throws RepriseError BAD_CONFIG when one cannot be listed */
export async function inspectDisk(directories: readonly string[], files: DiskFiles = nodeFiles): Promise<DiskContents> {
  const tallies = new Map<SpaceId, Tally>();
  const regions: RegionOnDisk[] = [];
  let hitsSavedAt: Date | undefined;
  for (const directory of directories) {
    const hits = await readHits(directory).catch(() => undefined); // all else can be told without it
    hitsSavedAt ??= hits?.savedAt;
    const inspection = { files, tallies, hits };
    for (const name of await namesIn(directory, files)) {
      const parsed = parseName(name);
      if (parsed === undefined) continue;
      const region = await inspectRegion(join(directory, name), parsed.isRegion, inspection);
      if (region !== undefined) regions.push(region);
    }
  }
  return {
    bytes: regions.reduce((sum, { bytes }) => sum + bytes, 0),
    spaces: [...tallies.values()].map(({ space }) => space).sort((a, b) => b.bytes - a.bytes),
    regions,
    hitsSavedAt,
  };
}

async function namesIn(directory: string, files: DiskFiles): Promise<string[]> {
  try {
    return (await files.list(directory)).sort();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw new RepriseError("BAD_CONFIG", `cannot read ${directory}: ${describe(error)}`, { cause: error });
  }
}

interface Tally {
  readonly space: SpaceOnDisk;
  readonly roots: Set<RootKey>;
  readonly keys: Set<ChunkKey>;
}

interface Inspection {
  readonly files: DiskFiles;
  readonly tallies: Map<SpaceId, Tally>;
  readonly hits: SavedHits | undefined;
}

/** @returns undefined when the region is gone */
async function inspectRegion(
  path: string,
  isRegion: boolean,
  { files, tallies, hits }: Inspection,
): Promise<RegionOnDisk | undefined> {
  let bytes = 0;
  let file: DiskFile | undefined;
  try {
    bytes = await files.size(path);
    const state = { path, bytes, chunks: 0, damaged: 0, problem: undefined };
    if (!isRegion || bytes < 2 * pageBytes) return { ...state, state: "foreign" };
    file = await files.openReadOnly(path);
    const nonce = decodeRegionHeader(await readPages(file, 0, pageBytes));
    if (nonce === "foreign") return { ...state, state: "foreign" };
    if (nonce === "damaged")
      return { ...state, state: "unreadable", problem: "its header does not match its checksum" };
    const { isSealed, records, damaged } = await recordsOf(file, { nonce, fileBytes: bytes });
    const saved = hits?.of(nonce);
    for (const { decoded, offset } of records)
      count(tallies, { ...decoded, reads: saved?.get(offset / pageBytes) ?? decoded.reads });
    return { ...state, state: isSealed ? "sealed" : "open", chunks: records.length, damaged };
  } catch (error) {
    const isThere = (await files.list(dirname(path))).includes(basename(path));
    return isThere ? { path, bytes, state: "unreadable", chunks: 0, damaged: 0, problem: describe(error) } : undefined;
  } finally {
    await file?.close();
  }
}

interface Found {
  readonly decoded: DecodedRecord;
  readonly offset: number;
}

async function recordsOf(
  file: DiskFile,
  region: { readonly nonce: Buffer; readonly fileBytes: number },
): Promise<{ isSealed: boolean; records: Found[]; damaged: number }> {
  const last = Math.floor(region.fileBytes / pageBytes) * pageBytes - pageBytes;
  const trailer = decodeTrailer(await readPages(file, last, pageBytes), region.fileBytes);
  const records: Found[] = [];
  if (trailer?.nonce.equals(region.nonce) !== true) {
    for await (const { decoded, offset } of scanRegion(file, region)) records.push({ decoded, offset });
    return { isSealed: false, records, damaged: 0 }; // one that is being written looks the same
  }
  const { columns } = decodeColumns(await readPages(file, trailer.columnsOffset, trailer.columnsBytes), trailer);
  const headers = await readPages(file, trailer.headersOffset, trailer.headersBytes);
  let at = 0;
  for (let i = 0; i < trailer.count; i += 1) {
    const header = headers.subarray(at, (at += columns[columnCount * i + 2]!)); // so many values for each
    const offset = columns[columnCount * i]! * pageBytes;
    const decoded = decodeHeader(header, { nonce: region.nonce, offset });
    if (decoded !== "damaged") records.push({ decoded, offset });
  }
  return { isSealed: true, records, damaged: trailer.count - records.length };
}

function count(tallies: Map<SpaceId, Tally>, { record, writtenAt, reads }: DecodedRecord): void {
  const date = new Date(writtenAt);
  let tally = tallies.get(record.space);
  if (tally === undefined) {
    const figures = { roots: 0, chunks: 0, tokens: 0, payloadBytes: 0, bytes: 0, hits: 0, chunksHit: 0 };
    const space = { space: record.space, parts: record.payloadBytes.length, ...figures, oldest: date, newest: date };
    tallies.set(record.space, (tally = { space, roots: new Set(), keys: new Set() }));
  }
  const { space, roots, keys } = tally;
  if (keys.has(record.key)) return;
  keys.add(record.key);
  roots.add(record.root);
  space.roots = roots.size;
  space.chunks += 1;
  space.tokens += record.tokens.length;
  space.payloadBytes += record.payloadBytes.reduce((sum, bytes) => sum + bytes, 0);
  space.bytes += recordBytes(record);
  space.hits += reads;
  if (reads > 0) space.chunksHit += 1;
  if (date < space.oldest) space.oldest = date;
  if (date > space.newest) space.newest = date;
}

async function readPages(file: DiskFile, position: number, bytes: number): Promise<Buffer> {
  const pages = alignedBuffer(bytes).fill(0);
  await file.read([pages], position);
  return pages;
}
