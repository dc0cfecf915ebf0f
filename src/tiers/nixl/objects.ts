/**
 * Values as objects of a bucket, moved by NIXL's OBJ plugin.
 *
 * NIXL says of a read that it is done when the store gave less than was asked for, tells no lengths, and has one failure for an
 * object that is absent and for a store that is away. So values lie in frames, and after a failure the store is asked:
 *
 *     offset  bytes
 *          0      8  magic "RPNIXLV1"
 *          8      4  length of the value, little-endian
 *         12      4  zero
 *         16     16  random, of this writing
 *         32      …  the value
 *          …     16  the same random bytes: all of it is there
 */
import { randomFillSync } from "node:crypto";
import { memoryAt, type Pointer } from "../../ffi/posix.ts";
import type { NixlAgent, Transfer } from "./agent.ts";
import { checkedName, type Medium, type Wait, type Wanted } from "./medium.ts";

export interface ObjectsOptions {
  readonly prefix: string;
  readonly memory: { readonly address: Pointer; readonly bytes: number };
  readonly openAgent: () => NixlAgent;
  readonly wait: Wait;
}

const magic = Buffer.from("RPNIXLV1", "latin1");
const randomAt = 16;
const randomLength = 16;
const headerBytes = 32;
const frameBytes = headerBytes + randomLength;
/** Asked for of each small value at first; nearly all are shorter. */
const firstBytes = 32 * 1024;

export class Objects implements Medium {
  readonly valueOffset = headerBytes;
  readonly #options: ObjectsOptions;
  readonly #agent: NixlAgent;
  readonly #view: Buffer;

  constructor(options: ObjectsOptions) {
    this.#options = options;
    this.#agent = options.openAgent();
    this.#view = Buffer.from(memoryAt(options.memory.address, options.memory.bytes));
  }

  getAll(names: readonly string[], wanted: Wanted): (Uint8Array | undefined)[] {
    const atOnce = Math.floor(this.#view.length / firstBytes);
    const values: (Uint8Array | undefined)[] = [];
    for (let at = 0; at < names.length; at += atOnce)
      values.push(...this.#getSome(names.slice(at, at + atOnce), wanted));
    return values;
  }

  read(name: string, bytes: number): "read" | "gone" {
    if (this.#readAll([{ name, offset: 0, bytes: bytes + frameBytes }])[0] === "absent") return "gone";
    return lengthOf(this.#view) === bytes && isWhole(this.#view, bytes) ? "read" : "gone";
  }

  write(name: string, bytes: number): "written" {
    const view = this.#view;
    view.fill(0, 0, headerBytes);
    magic.copy(view);
    view.writeUInt32LE(bytes, magic.length);
    randomFillSync(view, randomAt, randomLength);
    view.copy(view, headerBytes + bytes, randomAt, randomAt + randomLength);
    const target = { object: this.#keyOf(name) };
    const transfer = this.#agent.begin("write", target, { offset: 0, bytes: bytes + frameBytes });
    const outcome = this.#options.wait(() => transfer.poll());
    transfer.free();
    if (outcome === "failed") throw new Error(`${name} could not be written`);
    return "written";
  }

  close(): void {
    this.#agent.close();
  }

  #getSome(names: readonly string[], { maxBytes, isWanted }: Wanted): (Uint8Array | undefined)[] {
    const askedBytes = Math.min(firstBytes, maxBytes + frameBytes);
    const places = names.map((name, i) => ({ name, offset: i * firstBytes, bytes: askedBytes }));
    const outcomes = this.#readAll(places, isWanted);
    const lengths = places.map(({ offset }, i) =>
      outcomes[i] === "read" ? lengthOf(this.#view.subarray(offset)) : undefined,
    );
    const values = places.map(({ offset }, i) => {
      const frame = this.#view.subarray(offset, offset + askedBytes);
      const bytes = lengths[i];
      if (bytes === undefined || bytes > maxBytes || bytes + frameBytes > askedBytes) return undefined;
      return isWhole(frame, bytes) ? valueOf(frame, bytes) : undefined;
    });
    // The long ones are read again, each alone: they need the memory of the others.
    for (const [i, bytes] of lengths.entries()) {
      if (!isWanted()) break;
      if (bytes === undefined || bytes > maxBytes || bytes + frameBytes <= askedBytes) continue;
      if (bytes + frameBytes > this.#view.length || this.read(names[i]!, bytes) === "gone") continue;
      values[i] = valueOf(this.#view, bytes);
    }
    return values;
  }

  /**
   * Reads side by side, each into its place, until all have ended: none writes there any more.
   *
   * @returns "absent" also for what the store has and does not give (an object that is empty); fewer when nobody wants the rest
   * @throws Error when the store does not answer
   */
  #readAll(
    places: readonly { name: string; offset: number; bytes: number }[],
    isWanted = () => true,
  ): ("read" | "absent")[] {
    const transfers: Transfer[] = [];
    const allEnded = () => {
      // One that is done stays so, whichever of them is waited for.
      const outcomes = transfers.map((transfer) => this.#options.wait(() => transfer.poll()));
      for (const transfer of transfers) transfer.free();
      return outcomes;
    };
    try {
      for (const { name, offset, bytes } of places) {
        if (!isWanted()) break;
        // What an earlier value left there must not complete one that was cut: of a long one its ends say whether it is whole.
        this.#view.fill(0, offset, offset + Math.min(bytes, firstBytes));
        this.#view.fill(0, offset + bytes - randomLength, offset + bytes);
        transfers.push(this.#agent.begin("read", { object: this.#keyOf(name) }, { offset, bytes }));
      }
    } catch (error) {
      allEnded(); // those that have begun write into memory that the next job has
      throw error;
    }
    const outcomes = allEnded();
    const failed = outcomes.indexOf("failed");
    // Any answer to one of them says that the store is there, and that it said no to the others as well.
    if (failed !== -1 && isWanted()) this.#agent.isThere(this.#keyOf(places[failed]!.name));
    return outcomes.map((outcome) => (outcome === "done" ? "read" : "absent"));
  }

  #keyOf(name: string): string {
    return `${this.#options.prefix}/${checkedName(name).replaceAll(":", "/")}`;
  }
}

/** Undefined: it is no frame of ours. */
function lengthOf(frame: Buffer): number | undefined {
  return frame.subarray(0, magic.length).equals(magic) ? frame.readUInt32LE(magic.length) : undefined;
}

function isWhole(frame: Buffer, bytes: number): boolean {
  const end = headerBytes + bytes;
  const random = frame.subarray(randomAt, randomAt + randomLength);
  return frame.length >= end + randomLength && frame.subarray(end, end + randomLength).equals(random);
}

function valueOf(frame: Buffer, bytes: number): Uint8Array {
  return Uint8Array.from(frame.subarray(headerBytes, headerBytes + bytes));
}
