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
import type { FoundRecord, RecordBatch, RecordId, StoredRecord } from "../../tier.ts";
import type { ChunkKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import { alignedBuffer } from "./aligned.ts";
import { padded, pageBytes } from "../../pages.ts";
import { rootOf } from "../payload-checksum.ts";
import { columnCount, ContentsBuilder, decodeColumns, decodeTrailer, type Trailer } from "./contents.ts";
import type { Drive } from "./drive.ts";
import type { DiskFile } from "./files.ts";
import { KeyFinder } from "./key-finder.ts";
import { readRecord } from "./reader.ts";
import { decodeHeader, recordBytes, type DecodedRecord, type RecordPlace } from "./record.ts";
import type { RecordTable } from "./record-table.ts";
import { decodeRegionHeader, type Region } from "./region.ts";
import { scanRegion } from "./scan.ts";
import type { UnreadBatch, UnreadBatches } from "./unread-batches.ts";

export interface RecoveryParts {
  readonly drive: Drive;
  readonly table: RecordTable;
  readonly log: Log;
  /** Learns what is found, and when it has been read. */
  readonly unread: UnreadBatches;
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
  const headerAt = new Uint32Array(trailer.count);
  let headersBytes = 0;
  const counts = new Map<number, number>();
  for (let i = 0; i < trailer.count; i += 1) {
    const at = columnCount * i;
    ids[i] = parts.table.add({
      regionSlot: region.slot,
      offset: columns[at]! * pageBytes, // so many values for each
      totalBytes: columns[at + 1]! * pageBytes,
      headerBytes: padded(columns[at + 2]!),
      firstToken: columns[at + 3]!,
    });
    headerAt[i] = headersBytes;
    headersBytes += columns[at + 2]!;
    const space = columns[at + 4]!;
    counts.set(space, (counts.get(space) ?? 0) + 1);
  }
  const window = new HeaderWindow(file, trailer);
  const stream = { region, file, trailer, columns, ids, headerAt, window, ...parts };
  const finder = new KeyFinder(columns, trailer.count);
  return [...counts].map(([space, count]) => {
    const batch: UnreadBatch = {
      space: spaces[space]!, // the checksum is right
      find(key) {
        const isHere = (row: number) =>
          columns[columnCount * row + 4] === space && parts.table.has(ids[row]! as RecordId);
        const row = finder.find(key).find(isHere);
        return row === undefined ? undefined : () => readOne(stream, row, key);
      },
    };
    parts.unread.add(batch);
    const onRead = () => parts.unread.delete(batch);
    return { space: batch.space, count, records: () => streamHeaders(stream, space, onRead) };
  });
}

interface HeaderStream extends RecoveryParts {
  readonly region: Region;
  readonly file: DiskFile;
  readonly trailer: Trailer;
  readonly columns: Uint32Array;
  readonly ids: Float64Array;
  /** Where each record's header begins among all. */
  readonly headerAt: Uint32Array;
  readonly window: HeaderWindow;
}

/** The identities of a region's records of one space; one read. */
async function* streamHeaders(
  stream: HeaderStream,
  space: number,
  onRead: () => void,
): AsyncGenerator<StoredRecord, void, void> {
  const { region, file, trailer, columns, ids, table, headerAt } = stream;
  const headers = alignedBuffer(trailer.headersBytes);
  try {
    await file.read([headers], trailer.headersOffset);
    for (let i = 0; i < trailer.count; i += 1) {
      const id = ids[i]! as RecordId; // given by the table
      if (columns[columnCount * i + 4] !== space || !table.has(id)) continue;
      const header = headers.subarray(headerAt[i], headerAt[i]! + headerBytesOf(stream, i));
      let decoded = decodeHeader(header, placeOf(stream, i));
      if (decoded === "damaged") decoded = await decodedAgain(stream, i);
      if (decoded === "damaged") {
        table.drop(id);
        stream.onCorrupt();
      } else yield { ...decoded.record, id };
    }
  } catch (error) {
    if (region.removal === undefined)
      stream.log.warn(`cannot read the contents of ${region.path}: ${describe(error)}; its records are left out`);
  } finally {
    onRead();
  }
}

/** One record's lengths, with its neighbours' read along: texts lie together. */
async function readOne(stream: HeaderStream, row: number, key: ChunkKey): Promise<FoundRecord | undefined> {
  const id = stream.ids[row]! as RecordId; // given by the table
  try {
    const header = await stream.window.read(stream.headerAt[row]!, headerBytesOf(stream, row)); // one for each
    let decoded = decodeHeader(header, placeOf(stream, row));
    if (decoded === "damaged") decoded = await decodedAgain(stream, row);
    // What is damaged is dropped when its turn comes.
    if (decoded === "damaged" || decoded.record.key !== key) return undefined;
    return { id, payloadBytes: decoded.record.payloadBytes };
  } catch (error) {
    if (stream.region.removal === undefined)
      stream.log.warn(`cannot read the contents of ${stream.region.path}: ${describe(error)}`);
    return undefined;
  }
}

/** A record's own header, where the one in the contents was torn by a crash while it was written, or is rotten. */
async function decodedAgain(stream: HeaderStream, row: number): Promise<DecodedRecord | "damaged"> {
  const place = placeOf(stream, row);
  return decodeHeader(await readPages(stream.file, place.offset, padded(headerBytesOf(stream, row))), place);
}

function placeOf({ region, columns }: HeaderStream, row: number): RecordPlace {
  return { nonce: region.nonce, offset: columns[columnCount * row]! * pageBytes }; // one for each
}

function headerBytesOf({ columns }: HeaderStream, row: number): number {
  return columns[columnCount * row + 2]!; // one for each
}

const windowBytes = 64 * 1024;

/** Some of a region's headers, those that were read last. */
class HeaderWindow {
  readonly #file: DiskFile;
  readonly #trailer: Trailer;
  #from = 0;
  #pages: Promise<Buffer> | undefined;
  #bytes = 0;

  constructor(file: DiskFile, trailer: Trailer) {
    this.#file = file;
    this.#trailer = trailer;
  }

  /** The `bytes` from `at` on, among all headers. */
  async read(at: number, bytes: number): Promise<Buffer> {
    if (this.#pages === undefined || at < this.#from || at + bytes > this.#from + this.#bytes) {
      this.#from = Math.floor(at / pageBytes) * pageBytes;
      this.#bytes = Math.min(this.#trailer.headersBytes - this.#from, Math.max(windowBytes, padded(bytes) + pageBytes));
      this.#pages = readPages(this.#file, this.#trailer.headersOffset + this.#from, this.#bytes);
    }
    const [from, pages] = [this.#from, this.#pages];
    return (await pages).subarray(at - from, at - from + bytes);
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
