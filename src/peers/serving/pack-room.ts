/**
 * What packing for other hosts may take, all of them together: two threads, and memory for some blocks of 1 MiB.
 *
 *     free ──► packed ──► on its way ──taken by the reader──► free
 *
 * A block that finds no room goes as it is. So nobody waits for readers that are slow, and whoever asks for more than the threads can do
 * gets the rest unpacked.
 */
import { blockBytes, bytesOfRow, PayloadPacker, type Row, type Shape } from "../../tiers/shared/packing.ts";

/** A block as it is sent. */
export interface OutgoingBlock {
  readonly row: Row;
  readonly bytes: Uint8Array;
  /** Nobody reads its bytes any more. */
  readonly free: () => void;
}

const atOnce = 2;
/** With those that wait for their turn, and those on their way: two for each of so many connections that are packed for. */
const mostRooms = 32;
/** What saves less goes as it is. */
const roomBytes = blockBytes - (blockBytes >> 6);

export class PackRoom {
  readonly #packer: PayloadPacker;
  readonly #spare: Uint8Array[] = [];
  readonly #underWay = new Set<Promise<unknown>>();
  #made = 0;

  constructor(packer: PayloadPacker) {
    this.#packer = packer;
  }

  /** Undefined where the machine has no libzstd. */
  static open(): PackRoom | undefined {
    const packer = PayloadPacker.open(atOnce);
    return packer && new PackRoom(packer);
  }

  /** Resolves when no thread reads a block any more that was given before. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }

  /** For one payload's blocks, one after the other. */
  payload(): (block: Uint8Array) => Promise<OutgoingBlock> {
    let shape: Shape | "unknown" | "not worth it" = "unknown";
    return async (block) => {
      const room = shape === "not worth it" ? undefined : this.#take();
      if (room === undefined || shape === "not worth it") return asItIs(block);
      const isFirst = shape === "unknown";
      const packing = this.#packer.packBlock(block, room, shape === "unknown" ? undefined : shape);
      this.#underWay.add(packing);
      const done = await packing.finally(() => this.#underWay.delete(packing));
      if (done !== undefined) {
        ({ shape } = done);
        const bytes = room.subarray(0, bytesOfRow(done.row));
        return { row: done.row, bytes, free: () => this.#spare.push(room) };
      }
      this.#spare.push(room);
      if (isFirst) shape = "not worth it";
      return asItIs(block);
    };
  }

  #take(): Uint8Array | undefined {
    const spare = this.#spare.pop();
    if (spare !== undefined || this.#made === mostRooms) return spare;
    this.#made += 1;
    return new Uint8Array(roomBytes);
  }
}

function asItIs(block: Uint8Array): OutgoingBlock {
  return { row: [block.length], bytes: block, free: () => {} };
}
