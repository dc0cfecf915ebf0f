/** The segments of a directory: which there are, which is written, how many bytes they have. Knows nothing of records. */
import { join } from "node:path";
import type { DiskFile, DiskFiles } from "./files.ts";
import { segmentHeader, segmentName, type Segment } from "./segment.ts";

export class SegmentLog {
  readonly #directory: string;
  readonly #files: DiskFiles;
  readonly #segments = new Set<Segment>();
  #active: Segment | undefined;
  #lastNumber = 0;
  #dirty = false;

  constructor(directory: string, files: DiskFiles) {
    this.#directory = directory;
    this.#files = files;
  }

  /** The segment that is appended to. */
  get active(): Segment | undefined {
    return this.#active;
  }

  /** Bytes of all segment files. */
  get bytes(): number {
    let sum = 0;
    for (const segment of this.#segments) sum += segment.bytes;
    return sum;
  }

  /** Bytes of those that are not written any more. */
  get sealedBytes(): number {
    return this.bytes - (this.#active?.bytes ?? 0);
  }

  /** In the order they were written. */
  all(): Segment[] {
    return [...this.#segments];
  }

  /** Those that hold nothing of ours first, then the oldest. */
  inEvictionOrder(): Segment[] {
    return this.all().sort((a, b) => Number(a.records.size > 0) - Number(b.records.size > 0) || a.number - b.number);
  }

  async open(
    numberOf: (name: string) => number | undefined,
    isReadable: (file: DiskFile) => Promise<boolean>,
  ): Promise<void> {
    const numbers: number[] = [];
    for (const name of await this.#files.list(this.#directory)) {
      const number = numberOf(name);
      if (number !== undefined) numbers.push(number);
    }
    for (const number of numbers.sort((a, b) => a - b)) {
      const path = join(this.#directory, segmentName(number));
      const bytes = await this.#files.size(path);
      const file = await this.#files.open(path);
      const foreign = !(await isReadable(file));
      this.#lastNumber = number;
      this.#segments.add({
        number,
        path,
        file,
        bytes,
        limitBytes: bytes,
        records: new Set(),
        foreign,
        removal: undefined,
      });
    }
  }

  /** Begins a new segment, which becomes the active one. */
  async begin(limitBytes: number): Promise<Segment> {
    const number = (this.#lastNumber += 1);
    const path = join(this.#directory, segmentName(number));
    const file = await this.#files.create(path);
    const segment: Segment = {
      number,
      path,
      file,
      bytes: 0,
      limitBytes,
      records: new Set(),
      foreign: false,
      removal: undefined,
    };
    this.#segments.add(segment);
    try {
      await this.append(segment, [segmentHeader()]);
    } catch (error) {
      await this.remove(segment);
      throw error;
    }
    this.#active = segment;
    return segment;
  }

  /** Appends to a segment. @returns where. When that fails the segment is as it was before, or is sealed. */
  async append(segment: Segment, pieces: readonly Uint8Array[]): Promise<number> {
    const offset = segment.bytes;
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    this.#dirty = true;
    try {
      await segment.file.write(pieces, offset);
    } catch (error) {
      await this.#undo(segment, offset, bytes);
      throw error;
    }
    segment.bytes += bytes;
    return offset;
  }

  /** Nothing more is written to the active segment. */
  async seal(): Promise<void> {
    const sealed = this.#active;
    await this.sync();
    this.#active = undefined;
    if (sealed?.records.size === 0) await this.remove(sealed);
  }

  async sync(): Promise<void> {
    if (!this.#dirty || this.#active === undefined) return;
    this.#dirty = false;
    await this.#active.file.datasync();
  }

  /** Shortens a segment to its last whole record. */
  async cut(segment: Segment, bytes: number): Promise<void> {
    await segment.file.truncate(bytes);
    segment.bytes = bytes;
  }

  /** Deletes a segment; until its file is gone its bytes count. */
  remove(segment: Segment): Promise<void> {
    segment.removal ??= this.#remove(segment).catch((error: unknown) => {
      segment.removal = undefined; // to be tried again
      throw error;
    });
    return segment.removal;
  }

  async close(): Promise<void> {
    try {
      await this.sync();
    } finally {
      await Promise.allSettled([...this.#segments].map(({ removal, file }) => removal ?? file.close()));
      this.#segments.clear();
      this.#active = undefined;
    }
  }

  async #remove(segment: Segment): Promise<void> {
    if (segment === this.#active) this.#active = undefined;
    await this.#files.remove(segment.path);
    await segment.file.close();
    this.#segments.delete(segment);
  }

  async #undo(segment: Segment, offset: number, bytes: number): Promise<void> {
    try {
      await segment.file.truncate(offset);
    } catch {
      // What was written of it may still be there: it counts, and nothing is appended after it.
      segment.bytes = offset + bytes;
      if (segment === this.#active) this.#active = undefined;
    }
  }
}
