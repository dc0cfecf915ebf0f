/**
 * Where every record lies: columns of numbers, 25 bytes a record, so that ten million of them are no burden.
 *
 *     index   region  page  pages  header pages  first token  reads  generation  next of the same region
 *     0       3       1     17     1             0            2      1           7
 *     …
 *
 * A record's id is its index and the generation of that index; both together are never given twice. The records of a region
 * form a chain. A dropped one stays in it, marked, until its region is gone; only then is its index used again.
 */
import type { RecordId } from "../../tier.ts";

const none = 0xffff_ffff;
const indexLimit = 2 ** 32;

export interface RecordPosition {
  readonly regionSlot: number;
  readonly offset: number;
  readonly totalBytes: number;
  readonly headerBytes: number;
  readonly firstToken: number;
}

/** Checksums of so many records are remembered: of those that were written or read last. */
const rememberedChecksums = 1024;

export class RecordTable {
  #region = new Uint32Array(1024);
  #page = new Uint32Array(1024);
  #pages = new Uint32Array(1024);
  #headerPages = new Uint8Array(1024);
  #firstToken = new Uint32Array(1024);
  #reads = new Uint16Array(1024);
  #generation = new Uint32Array(1024);
  #next = new Uint32Array(1024);
  /** Indexes used so far, free ones included. */
  #length = 0;
  #free = none;
  #live = 0;
  /** By region: the head of its chain, how many of it are live, and their bytes. */
  readonly #heads: number[] = [];
  readonly #liveOf: number[] = [];
  readonly #liveBytesOf: number[] = [];
  readonly #freeRegions: number[] = [];
  /** The oldest first. Those of all records would take as much room as all columns, and the headers have them. */
  readonly #checksums = new Map<RecordId, readonly bigint[]>();

  /** Live records. */
  get size(): number {
    return this.#live;
  }

  /** A slot for a region's chain. */
  addRegion(): number {
    const slot = this.#freeRegions.pop() ?? this.#heads.length;
    this.#heads[slot] = none;
    this.#liveOf[slot] = 0;
    this.#liveBytesOf[slot] = 0;
    return slot;
  }

  /** Live records of a region. */
  liveOf(regionSlot: number): number {
    return this.#liveOf[regionSlot]!; // added
  }

  /** Their bytes, padding included. */
  liveBytesOf(regionSlot: number): number {
    return this.#liveBytesOf[regionSlot]!; // added
  }

  add(position: RecordPosition, reads = 0): RecordId {
    const index = this.#take();
    const { regionSlot } = position;
    this.#region[index] = regionSlot;
    this.#page[index] = position.offset / 4096;
    this.#pages[index] = position.totalBytes / 4096;
    this.#headerPages[index] = position.headerBytes / 4096;
    this.#firstToken[index] = position.firstToken;
    this.#reads[index] = Math.min(reads, 0xffff);
    this.#next[index] = this.#heads[regionSlot]!; // added
    this.#heads[regionSlot] = index;
    this.#liveOf[regionSlot]! += 1;
    this.#liveBytesOf[regionSlot]! += position.totalBytes;
    this.#live += 1;
    return this.#idOf(index);
  }

  find(id: RecordId): RecordPosition | undefined {
    const index = this.#indexOf(id);
    return index === undefined ? undefined : this.#at(index);
  }

  has(id: RecordId): boolean {
    return this.#indexOf(id) !== undefined;
  }

  reads(id: RecordId): number {
    const index = this.#indexOf(id);
    return index === undefined ? 0 : this.#reads[index]!;
  }

  countRead(id: RecordId): void {
    const index = this.#indexOf(id);
    if (index !== undefined && this.#reads[index]! < 0xffff) this.#reads[index]! += 1;
  }

  setReads(id: RecordId, reads: number): void {
    const index = this.#indexOf(id);
    if (index !== undefined) this.#reads[index] = Math.min(reads, 0xffff);
  }

  /** The checksums of its payloads, if they were noted lately. */
  checksums(id: RecordId): readonly bigint[] | undefined {
    return this.has(id) ? this.#checksums.get(id) : undefined;
  }

  noteChecksums(id: RecordId, checksums: readonly bigint[]): void {
    this.#checksums.delete(id);
    this.#checksums.set(id, checksums);
    const [oldest] = this.#checksums.keys();
    if (this.#checksums.size > rememberedChecksums) this.#checksums.delete(oldest!); // there is one
  }

  /** Marks a record as gone. @returns its region, or undefined when it was gone already */
  drop(id: RecordId): number | undefined {
    const index = this.#indexOf(id);
    if (index === undefined) return undefined;
    const region = this.#region[index]!;
    this.#region[index] = none;
    this.#generation[index]! += 1;
    this.#liveOf[region]! -= 1;
    this.#liveBytesOf[region]! -= 4096 * this.#pages[index]!;
    this.#live -= 1;
    return region;
  }

  /** The live records of a region, the one added last first. */
  *of(regionSlot: number): Generator<RecordId, void, void> {
    for (let index = this.#heads[regionSlot]!; index !== none;) {
      const next: number = this.#next[index]!;
      if (this.#region[index] === regionSlot) yield this.#idOf(index);
      index = next;
    }
  }

  /** Forgets a region and all its records. */
  removeRegion(regionSlot: number): void {
    for (let index = this.#heads[regionSlot]!; index !== none;) {
      const next: number = this.#next[index]!;
      if (this.#region[index] === regionSlot) {
        this.#generation[index]! += 1;
        this.#live -= 1;
      }
      this.#region[index] = none;
      this.#next[index] = this.#free;
      this.#free = index;
      index = next;
    }
    this.#heads[regionSlot] = none;
    this.#liveOf[regionSlot] = 0;
    this.#liveBytesOf[regionSlot] = 0;
    this.#freeRegions.push(regionSlot);
  }

  #idOf(index: number): RecordId {
    return (this.#generation[index]! * indexLimit + index) as RecordId;
  }

  #indexOf(id: RecordId): number | undefined {
    const index = id % indexLimit;
    const isLive =
      index < this.#length && this.#region[index] !== none && this.#generation[index] === Math.floor(id / indexLimit);
    return isLive ? index : undefined;
  }

  #at(index: number): RecordPosition {
    return {
      regionSlot: this.#region[index]!,
      offset: this.#page[index]! * 4096,
      totalBytes: this.#pages[index]! * 4096,
      headerBytes: this.#headerPages[index]! * 4096,
      firstToken: this.#firstToken[index]!,
    };
  }

  #take(): number {
    if (this.#free !== none) {
      const index = this.#free;
      this.#free = this.#next[index]!;
      return index;
    }
    if (this.#length === this.#region.length) this.#grow();
    this.#length += 1;
    this.#generation[this.#length - 1] = 1;
    return this.#length - 1;
  }

  #grow(): void {
    const larger = 2 * this.#region.length;
    const copy = <Column extends Uint32Array | Uint16Array | Uint8Array>(from: Column, to: Column): Column => {
      to.set(from);
      return to;
    };
    this.#region = copy(this.#region, new Uint32Array(larger));
    this.#page = copy(this.#page, new Uint32Array(larger));
    this.#pages = copy(this.#pages, new Uint32Array(larger));
    this.#headerPages = copy(this.#headerPages, new Uint8Array(larger));
    this.#firstToken = copy(this.#firstToken, new Uint32Array(larger));
    this.#reads = copy(this.#reads, new Uint16Array(larger));
    this.#generation = copy(this.#generation, new Uint32Array(larger));
    this.#next = copy(this.#next, new Uint32Array(larger));
  }
}
