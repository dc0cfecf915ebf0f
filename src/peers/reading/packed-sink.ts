/**
 * Where a packed payload goes that is being received: block by block, each to the end of its own place, where it is unpacked while the
 * next ones come.
 *
 *     slot   │ block │ block │ unpacking │      ◄─ packed │           │
 *
 * What is written lies in the block's place, whatever the other host says and sends.
 */
import { leavesToEnd, rootOf } from "../../tiers/payload-checksum.ts";
import { blocksOf, bytesOfRow, isRowOf, type PayloadPacker, type Row } from "../../tiers/shared/packing.ts";
import type { Sink } from "./payload-sink.ts";

const nothing = new Uint8Array();

/** A block of which bytes are coming. */
interface Arriving {
  readonly block: Uint8Array;
  readonly row: Row;
  /** All of its packed bytes. */
  readonly packed: Uint8Array;
}

export class PackedSink implements Sink {
  readonly #view: Uint8Array;
  readonly #length: number;
  readonly #packer: PayloadPacker;
  readonly #blocks: readonly Uint8Array[];
  /** The leaves of those that have come; undefined: it was not packed like that. */
  readonly #unpacked: Promise<bigint[] | undefined>[] = [];
  #arriving: Arriving | undefined;
  /** Where its next bytes go. */
  #missing: Uint8Array = nothing;
  storedBytes = 0;

  /** @param view that fits the payload (payload-sink.ts) */
  constructor(view: Uint8Array, length: number, packer: PayloadPacker) {
    this.#view = view;
    this.#length = length;
    this.#packer = packer;
    this.#blocks = blocksOf(view.subarray(0, length));
  }

  get isFull(): boolean {
    return this.#unpacked.length === this.#blocks.length;
  }

  get missingBytes(): number {
    return this.#missing.length;
  }

  /** Bytes of the next block come now. @returns false when no block can have such bytes, or none was to come */
  begin(row: readonly number[]): boolean {
    const block = this.#blocks[this.#unpacked.length];
    if (this.#arriving !== undefined || block === undefined || !isRowOf(row, block)) return false;
    const bytes = bytesOfRow(row);
    if (bytes === 0) return false;
    this.#missing = block.subarray(block.length - bytes);
    this.#arriving = { block, row, packed: this.#missing };
    return true;
  }

  room(): Uint8Array | undefined {
    return this.#missing.length === 0 ? undefined : this.#missing;
  }

  took(bytes: number): void {
    this.storedBytes += bytes;
    this.#missing = this.#missing.subarray(bytes);
    if (this.#arriving === undefined || this.#missing.length > 0) return;
    const unpacked = this.#unpack(this.#arriving);
    unpacked.catch(() => {}); // whoever asks for the checksum is told
    this.#unpacked.push(unpacked);
    this.#arriving = undefined;
  }

  put(bytes: Uint8Array): void {
    this.#missing.set(bytes);
    this.took(bytes.length);
  }

  async checksum(): Promise<bigint | undefined> {
    this.#view.fill(0, this.#length);
    const leaves = await Promise.all(this.#unpacked);
    if (!this.isFull || leaves.includes(undefined)) return undefined;
    return rootOf(leaves.flatMap((each) => each ?? []));
  }

  async ended(): Promise<void> {
    await Promise.allSettled(this.#unpacked);
  }

  async #unpack({ block, row, packed }: Arriving): Promise<bigint[] | undefined> {
    const isAsItWas = row.length === 1 && packed.length === block.length;
    if (!isAsItWas && !(await this.#packer.unpackBlock(packed, row, block))) return undefined;
    return leavesToEnd(block);
  }
}
