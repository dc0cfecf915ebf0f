/**
 * Packed payloads, for the way to a store and back: blocks of 1 MiB, each split into planes (planes.ts) and those packed by zstd.
 *
 *     per block    bytes of its first plane (4), of its second (4)          little-endian
 *                  or of the block as a whole (4), 0xffffffff (4)
 *     …            the blocks' bytes, in order; what has all of its bytes is as it was
 *
 * Which of the two pays more is tried on the first block. A payload that would not become smaller is not packed. Blocks that travel
 * each by itself, between hosts (../../peers/protocol.ts), have no table.
 *
 * Unpacking needs no memory of the payload's size: it arrives at the end of the place where it is to be, and is unpacked from the front.
 * No block has more bytes packed than unpacked, so what is written never reaches what is still to be read:
 *
 *     slot   │ unpacked ───►      │      ◄─── packed, still to come │
 */
import { setImmediate as turn } from "node:timers/promises";
import { openZstd, type Zstd } from "../../ffi/zstd.ts";
import { allEnded } from "./all-ended.ts";
import { merge, split } from "./planes.ts";

/** Split or merged in some half a millisecond. */
export const blockBytes = 1024 * 1024;
const rowBytes = 8;
/** In the table, in place of a second number. */
const asAWhole = 0xffff_ffff;
/** A page saves a round trip nothing. */
const leastBytes = 4096;
/** Node has as many threads for such calls. */
const threads = 4;

interface Scratch {
  readonly planes: readonly [Uint8Array, Uint8Array];
  /** Of a block that is not split. */
  readonly whole: Uint8Array;
}

/** What the first block of a payload has shown: which way is better, and which of the planes are worth zstd's time. */
export type Shape =
  | { readonly kind: "whole" }
  | { readonly kind: "planes"; readonly pays: readonly [boolean, boolean] };

/** Bytes of a packed block: as a whole, or of its planes. What has all of its bytes is as it was. */
export type Row = readonly [whole: number] | readonly [first: number, second: number];

export interface PackedBlock {
  readonly row: Row;
  /** For the next blocks of the payload. */
  readonly shape: Shape;
}

export class PayloadPacker {
  readonly #zstd: Zstd;
  readonly #mostAtOnce: number;
  readonly #free: Scratch[] = [];
  /** As many as payloads are being read and written at the most. */
  readonly #waiting: ((scratch: Scratch) => void)[] = [];
  #made = 0;

  constructor(zstd: Zstd, mostAtOnce: number) {
    this.#zstd = zstd;
    this.#mostAtOnce = mostAtOnce;
  }

  /**
   * Undefined where the machine has no libzstd.
   *
   * @param mostAtOnce blocks on their way through zstd, each with scratch of 2 MiB
   */
  static open(mostAtOnce = threads): PayloadPacker | undefined {
    const zstd = openZstd();
    return zstd && new PayloadPacker(zstd, mostAtOnce);
  }

  /** @returns fewer bytes than the payload has; undefined where there is nothing to gain */
  async pack(payload: Uint8Array): Promise<Uint8Array | undefined> {
    const packed = new Uint8Array(payload.length);
    const table = new DataView(packed.buffer);
    const blocks = blocksOf(payload);
    let at = blocks.length * rowBytes;
    let shape: Shape | undefined;
    for (const [i, block] of blocks.entries()) {
      const done = await this.packBlock(block, packed.subarray(at), shape);
      if (done === undefined) return undefined;
      ({ shape } = done);
      table.setUint32(i * rowBytes, done.row[0], true);
      table.setUint32(i * rowBytes + 4, done.row[1] ?? asAWhole, true);
      at += bytesOfRow(done.row);
    }
    return at < payload.length ? packed.subarray(0, at) : undefined;
  }

  /**
   * @param place as long as the payload, with what was packed at its end
   * @returns false: that was no such payload packed. Then anything may be in its place.
   */
  async unpack(place: Uint8Array, packedBytes: number): Promise<boolean> {
    const blocks = blocksOf(place);
    let at = place.length - packedBytes;
    const rows = rowsOf(place.subarray(at), blocks);
    if (rows === undefined) return false;
    at += blocks.length * rowBytes;
    for (const [i, block] of blocks.entries()) {
      const row = rows[i]!; // one for each
      const from = place.subarray(at, at + bytesOfRow(row));
      at += from.length;
      if (!(await this.unpackBlock(from, row, block))) return false;
    }
    return true;
  }

  /**
   * @param block of a payload, {@link blocksOf} it
   * @param shape undefined: of the first one
   * @returns undefined where there is nothing to gain, or no room
   */
  packBlock(block: Uint8Array, room: Uint8Array, shape: Shape | undefined): Promise<PackedBlock | undefined> {
    return this.#withScratch((scratch) =>
      shape === undefined ? this.#packFirst(block, room, scratch) : this.#packNext(block, room, scratch, shape),
    );
  }

  /**
   * @param from its bytes packed, as many as its row says; they may lie at the end of the block's own place
   * @param row that {@link isRowOf} the block
   * @returns false: that was no such block packed. Then anything may be in its place.
   */
  unpackBlock(from: Uint8Array, row: Row, block: Uint8Array): Promise<boolean> {
    return this.#withScratch((scratch) => this.#unpackBlock(from, row, block, scratch));
  }

  /** Both ways, of which the better one is taken. @returns undefined when neither is worth it */
  async #packFirst(block: Uint8Array, room: Uint8Array, scratch: Scratch): Promise<PackedBlock | undefined> {
    if (block.length < leastBytes) return undefined;
    const planes = await this.#packNext(block, room, scratch, { kind: "planes", pays: [true, true] });
    const planesBytes = planes === undefined ? Infinity : bytesOfRow(planes.row);
    // Planes cost a merge as well: they must be clearly smaller.
    const most = Math.min(planesBytes + (block.length >> 7), worthwhile(block.length), room.length);
    const whole = await this.#zstd.compress(block, scratch.whole.subarray(0, most));
    if (whole !== undefined) {
      room.set(scratch.whole.subarray(0, whole));
      return { row: [whole], shape: { kind: "whole" } };
    }
    if (planes === undefined || planesBytes > worthwhile(block.length)) return undefined;
    const halves = halfLengths(block.length);
    const pays = (plane: 0 | 1) => planes.row[plane]! < halves[plane]; // it has both
    return { row: planes.row, shape: { kind: "planes", pays: [pays(0), pays(1)] } };
  }

  /** @returns undefined where it has no room */
  async #packNext(
    block: Uint8Array,
    room: Uint8Array,
    scratch: Scratch,
    shape: Shape,
  ): Promise<PackedBlock | undefined> {
    if (shape.kind === "whole") {
      const bytes = await this.#packOne(block, room, true);
      return bytes === undefined ? undefined : { row: [bytes], shape };
    }
    const [a, b] = planesFor(block, scratch);
    split(block, a, b);
    const bytesA = await this.#packOne(a, room, shape.pays[0]);
    if (bytesA === undefined) return undefined;
    const bytesB = await this.#packOne(b, room.subarray(bytesA), shape.pays[1]);
    return bytesB === undefined ? undefined : { row: [bytesA, bytesB], shape };
  }

  /** As it is where that is as good. @returns the bytes written; undefined where there is no room */
  async #packOne(bytes: Uint8Array, room: Uint8Array, pays: boolean): Promise<number | undefined> {
    const into = room.subarray(0, worthwhile(bytes.length));
    const packed = pays ? await this.#zstd.compress(bytes, into) : undefined;
    if (packed !== undefined) return packed;
    if (bytes.length > room.length) return undefined;
    room.set(bytes);
    return bytes.length;
  }

  /** By way of the scratch: the block may be written where it is read from. */
  async #unpackBlock(from: Uint8Array, [first, second]: Row, block: Uint8Array, scratch: Scratch): Promise<boolean> {
    if (second === undefined) {
      const plain = scratch.whole.subarray(0, block.length);
      if (!(await this.#unpackOne(from, plain))) return false;
      block.set(plain);
      return true;
    }
    const [a, b] = planesFor(block, scratch);
    // Both have ended before the scratch is another's, also where one is thrown.
    const right = await allEnded([
      this.#unpackOne(from.subarray(0, first), a),
      this.#unpackOne(from.subarray(first), b),
    ]);
    if (right.includes(false)) return false;
    merge(a, b, block);
    return true;
  }

  async #unpackOne(from: Uint8Array, into: Uint8Array): Promise<boolean> {
    if (from.length < into.length) return this.#zstd.decompress(from, into);
    into.set(from);
    return true;
  }

  /** Others get their turn after each block, also where nothing of it goes through zstd. */
  async #withScratch<T>(work: (scratch: Scratch) => Promise<T>): Promise<T> {
    const scratch = await this.#take();
    try {
      return await work(scratch);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free.push(scratch);
      else next(scratch);
      await turn();
    }
  }

  #take(): Scratch | Promise<Scratch> {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#made >= this.#mostAtOnce) return new Promise((resolve) => this.#waiting.push(resolve));
    this.#made += 1;
    const half = () => new Uint8Array(blockBytes / 2);
    return { planes: [half(), half()], whole: new Uint8Array(blockBytes) };
  }
}

function planesFor({ length }: Uint8Array, { planes }: Scratch): readonly [Uint8Array, Uint8Array] {
  const [first, second] = halfLengths(length);
  return [planes[0].subarray(0, first), planes[1].subarray(0, second)];
}

/** Undefined: they are not those of as many blocks, or do not say what is there. */
function rowsOf(packed: Uint8Array, blocks: readonly Uint8Array[]): Row[] | undefined {
  const tableBytes = blocks.length * rowBytes;
  if (packed.length < tableBytes) return undefined;
  const table = new DataView(packed.buffer, packed.byteOffset, tableBytes);
  const rows = blocks.map((_, i): Row => {
    const [first, second] = [table.getUint32(i * rowBytes, true), table.getUint32(i * rowBytes + 4, true)];
    return second === asAWhole ? [first] : [first, second];
  });
  const fits = rows.every((row, i) => isRowOf(row, blocks[i]!)); // one for each
  const total = rows.reduce((sum, row) => sum + bytesOfRow(row), tableBytes);
  return fits && total === packed.length ? rows : undefined;
}

/** Whether a block of this length can have such a row: its bytes have room in its place. */
export function isRowOf(row: readonly number[], { length }: Uint8Array): row is Row {
  const [first, second] = halfLengths(length);
  if (row.length === 1) return row[0]! <= length;
  return row.length === 2 && row[0]! <= first && row[1]! <= second;
}

export function bytesOfRow([first, second = 0]: Row): number {
  return first + second;
}

export function blocksOf(bytes: Uint8Array): Uint8Array[] {
  const count = Math.ceil(bytes.length / blockBytes);
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * blockBytes, (i + 1) * blockBytes));
}

function halfLengths(bytes: number): readonly [first: number, second: number] {
  return [Math.ceil(bytes / 2), Math.floor(bytes / 2)];
}

/** What saves less than one byte in 64 is not worth unpacking. */
function worthwhile(bytes: number): number {
  return Math.max(0, bytes - Math.max(1, bytes >> 6));
}
