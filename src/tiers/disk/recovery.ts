/**
 * What a start finds in a region: by its contents (one read), or by a scan where there are none.
 *
 *     header ─ bad ──────────────────────► foreign: its room is given back first
 *        └─ contents, of this nonce, whole ──► columns into the table; headers are read when somebody asks
 *        └─ none, damaged, of another nonce ──► scan: every record's header and payload is read and verified, and the region
 *                                               gets its contents, so that the next start is quick
 *
 * Only the regions that were open at a crash have no contents, so a crash costs a scan of one region per drive.
 */
import { describe } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { RecordBatch, RecordId, StoredRecord } from "../../tier.ts";
import type { SpaceId } from "../../cache/space.ts";
import { alignedBuffer, padded, pageBytes } from "./aligned.ts";
import { rootOf } from "../payload-checksum.ts";
import { columnCount, ContentsBuilder, decodeColumns, decodeTrailer, type Trailer } from "./contents.ts";
import type { Drive } from "./drive.ts";
import type { DiskFile } from "./files.ts";
import { readRecord } from "./reader.ts";
import { decodeHeader, recordBytes } from "./record.ts";
import type { RecordTable } from "./record-table.ts";
import { decodeRegionHeader, type Region } from "./region.ts";
import { scanRegion } from "./scan.ts";

export interface RecoveryParts {
  readonly drive: Drive;
  readonly table: RecordTable;
  readonly log: Log;
  /** Something was lost that had been written whole. */
  readonly onCorrupt: () => void;
  /** A record was found whose writing had not ended. */
  readonly onTorn: () => void;
}

/** Reads what a region holds into the table. @throws the file system's errors */
export async function recoverRegion(region: Region, parts: RecoveryParts): Promise<RecordBatch[]> {
  if (region.fileBytes < 2 * pageBytes) {
    region.state = "foreign";
    await parts.drive.remove(region);
    return [];
  }
  const file = await parts.drive.openFile(region);
  const nonce = decodeRegionHeader(await readPages(file, 0, pageBytes));
  if (nonce === "foreign") {
    region.state = "foreign";
    return [];
  }
  const last = Math.floor(region.fileBytes / pageBytes) * pageBytes - pageBytes;
  const trailer = decodeTrailer(await readPages(file, last, pageBytes), region.fileBytes);
  if (nonce !== "damaged") region.nonce = nonce;
  else if (trailer !== undefined) region.nonce = trailer.nonce;
  else {
    parts.onCorrupt();
    parts.log.warn(`${region.path} has lost its header and its contents: it is given up`);
    region.state = "foreign";
    return [];
  }
  const batches =
    trailer !== undefined && trailer.nonce.equals(region.nonce)
      ? await fromContents(region, file, trailer, parts)
      : undefined;
  return batches ?? fromScan(region, file, parts);
}

async function fromContents(
  region: Region,
  file: DiskFile,
  trailer: Trailer,
  parts: RecoveryParts,
): Promise<RecordBatch[] | undefined> {
  const bytes = alignedBuffer(trailer.columnsBytes);
  const { leaves } = await file.read([bytes], trailer.columnsOffset);
  if (rootOf(leaves[0]!) !== trailer.columnsChecksum) return undefined; // one piece
  const { columns, spaces } = decodeColumns(bytes, trailer);
  region.state = "sealed";
  region.end = trailer.columnsOffset;
  const ids = new Float64Array(trailer.count);
  const counts = new Map<number, number>();
  for (let i = 0; i < trailer.count; i += 1) {
    const at = columnCount * i;
    ids[i] = parts.table.add({
      regionSlot: region.slot,
      offset: columns[at]! * pageBytes, // five values for each
      totalBytes: columns[at + 1]! * pageBytes,
      headerBytes: padded(columns[at + 2]!),
      firstToken: columns[at + 3]!,
    });
    const space = columns[at + 4]!;
    counts.set(space, (counts.get(space) ?? 0) + 1);
  }
  const stream = { region, file, trailer, columns, ids, ...parts };
  return [...counts].map(([space, count]) => ({
    space: spaces[space]!, // the checksum is right
    count,
    records: () => streamHeaders(stream, space),
  }));
}

interface HeaderStream extends RecoveryParts {
  readonly region: Region;
  readonly file: DiskFile;
  readonly trailer: Trailer;
  readonly columns: Uint32Array;
  readonly ids: Float64Array;
}

/** The identities of a region's records of one space; one read. */
async function* streamHeaders(stream: HeaderStream, space: number): AsyncGenerator<StoredRecord, void, void> {
  const { region, file, trailer, columns, ids, table } = stream;
  const headers = alignedBuffer(trailer.headersBytes);
  try {
    await file.read([headers], trailer.headersOffset);
  } catch (error) {
    if (region.removal === undefined)
      stream.log.warn(`cannot read the contents of ${region.path}: ${describe(error)}; its records are left out`);
    return;
  }
  let headerAt = 0;
  for (let i = 0; i < trailer.count; i += 1) {
    const headerBytes = columns[columnCount * i + 2]!;
    const header = headers.subarray(headerAt, headerAt + headerBytes);
    headerAt += headerBytes;
    const id = ids[i]! as RecordId; // given by the table
    if (columns[columnCount * i + 4] !== space || !table.has(id)) continue;
    const place = { nonce: region.nonce, offset: columns[columnCount * i]! * pageBytes };
    let decoded = decodeHeader(header, place);
    // Torn by a crash while the region was sealed, or rotten: the record has its header too.
    if (decoded === "damaged") decoded = decodeHeader(await readPages(file, place.offset, padded(headerBytes)), place);
    if (decoded === "damaged") {
      table.drop(id);
      stream.onCorrupt();
    } else yield { ...decoded.record, id };
  }
}

async function fromScan(region: Region, file: DiskFile, parts: RecoveryParts): Promise<RecordBatch[]> {
  const bySpace = new Map<SpaceId, StoredRecord[]>();
  const contents = new ContentsBuilder();
  let end = pageBytes;
  for await (const { offset, decoded, header } of scanRegion(file, region)) {
    const { record } = decoded;
    const totalBytes = recordBytes(record);
    const position = {
      regionSlot: region.slot,
      offset,
      totalBytes,
      headerBytes: padded(header.length),
      firstToken: record.firstToken,
    };
    const payloads = record.payloadBytes.map((bytes) => alignedBuffer(bytes));
    const whole = await readRecord({ file, nonce: region.nonce }, position, payloads, record.key);
    if (whole === "damaged") {
      parts.onTorn();
      continue;
    }
    end = offset + totalBytes;
    contents.reserve(record.space, header.length);
    contents.add({ offset, totalBytes, firstToken: record.firstToken, space: record.space, header });
    const records = bySpace.get(record.space) ?? [];
    bySpace.set(record.space, records);
    records.push({ ...record, id: parts.table.add(position, decoded.reads) });
  }
  region.end = end;
  region.contents = contents;
  try {
    await parts.drive.sealRegion(region);
  } catch (error) {
    parts.log.warn(`cannot write the contents of ${region.path}: ${describe(error)}; the next start scans it again`);
  }
  return [...bySpace].map(([space, records]) => ({
    space,
    count: records.length,
    async *records() {
      for (const record of records) if (parts.table.has(record.id)) yield record;
    },
  }));
}

async function readPages(file: DiskFile, position: number, bytes: number): Promise<Buffer> {
  const page = alignedBuffer(bytes).fill(0);
  await file.read([page], position);
  return page;
}
