/**
 * Finds the records of a region without its contents: each begins where the one before it ends. Where none begins, a write
 * was torn or lost (later ones may have arrived all the same), and the search goes on page by page.
 */
import { alignedBuffer } from "./aligned.ts";
import { pageBytes } from "../../pages.ts";
import type { DiskFile } from "./files.ts";
import { decodeHeader, headerBytesAt, recordBytes, type DecodedRecord } from "./record.ts";

/** Read ahead where records stand one after the other: their headers only. */
const nextHeaderBytes = 16 * 1024;
/** Read ahead where they are searched. */
const searchBytes = 1024 * 1024;

export interface FoundRecord {
  readonly offset: number;
  readonly decoded: DecodedRecord;
  /** Without padding; a copy. */
  readonly header: Buffer;
}

/** Every record whose header is whole, in order. Payloads are not looked at. */
export async function* scanRegion(
  file: DiskFile,
  region: { readonly nonce: Uint8Array; readonly fileBytes: number },
): AsyncGenerator<FoundRecord, void, void> {
  const window = new Window(file, region.fileBytes);
  let isSearching = false;
  for (let offset = pageBytes; offset + pageBytes <= region.fileBytes;) {
    const place = { nonce: region.nonce, offset };
    let bytes = await window.at(offset, pageBytes, isSearching ? searchBytes : nextHeaderBytes);
    const headerBytes = headerBytesAt(bytes, place);
    if (headerBytes !== undefined) bytes = await window.at(offset, headerBytes, nextHeaderBytes);
    const decoded = headerBytes === undefined ? "damaged" : decodeHeader(bytes, place);
    isSearching = decoded === "damaged" || offset + recordBytes(decoded.record) > region.fileBytes;
    if (decoded === "damaged" || isSearching) {
      offset += pageBytes;
      continue;
    }
    yield { offset, decoded, header: Buffer.from(bytes.subarray(0, decoded.headerBytes)) };
    offset += recordBytes(decoded.record);
  }
}

/** Reads ahead, so that looking at page after page is not a read each. */
class Window {
  readonly #file: DiskFile;
  readonly #end: number;
  #start = 0;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(file: DiskFile, end: number) {
    this.#file = file;
    this.#end = end;
  }

  async at(offset: number, bytes: number, aheadBytes: number): Promise<Buffer> {
    const from = offset - this.#start;
    if (from < 0 || from + bytes > this.#bytes.length) {
      const wanted = Math.min(Math.max(bytes, aheadBytes), Math.max(pageBytes, this.#end - offset));
      const buffer = alignedBuffer(wanted);
      const { bytes: got } = await this.#file.read([buffer], offset);
      this.#bytes = buffer.subarray(0, got);
      this.#start = offset;
    }
    return this.#bytes.subarray(offset - this.#start);
  }
}
