/**
 * Memory that we share with the process of Mooncake's client, in slots. A slot belongs to one request from before it is sent until it
 * is answered, or the process has ended: whoever does not wait so long has nothing in it any more.
 *
 *     free ──take──► taken ──give──► free
 *                      └────rest───► resting, for what may still be on its way ──► free
 *
 * Lookups wait behind no payload: some slots are theirs alone. A payload may take as long as its link needs, and a lookup that is late
 * says that the pool is away.
 */
import { closeSync } from "node:fs";
import { assert } from "../../errors.ts";
import { mapFile, memoryAt, memoryFile, unmap, type Pointer } from "../../ffi/posix.ts";

/** A value of a shared tier is shorter (tiers/shared/value-tier.ts). */
export const slotBytes = 4 * 1024 * 1024;
/** The process does as many requests at a time. */
export const slotCount = 16;
/** Of these, those that no payload takes. */
const lookupSlots = 2;
/** More are refused at once. */
const mostWaiting = 4096;
/** A transfer that Mooncake gave up is not taken back: what comes later than this would be found by its checksum. */
const restMs = 60_000;

/** What a slot is for. */
export type Purpose = "lookup" | "payload";

export interface Slot {
  /** Where it begins in the shared memory. */
  readonly at: number;
  readonly memory: Uint8Array;
}

export class Slots {
  /** The memory, for the process to inherit. */
  readonly file: number;
  readonly #pointer: Pointer;
  readonly #free: Slot[];
  readonly #waiting: Readonly<Record<Purpose, Set<(slot: Slot | Error) => void>>> = {
    lookup: new Set(),
    payload: new Set(),
  };
  readonly #timers = new Set<NodeJS.Timeout>();
  #isClosed = false;

  /** @throws Node's error when there is no memory to be had */
  constructor() {
    const bytes = slotBytes * slotCount;
    this.file = memoryFile("reprise-mooncake", bytes);
    this.#pointer = mapFile(this.file, bytes);
    const memory = new Uint8Array(memoryAt(this.#pointer, bytes));
    this.#free = Array.from({ length: slotCount }, (_, i) => ({
      at: i * slotBytes,
      memory: memory.subarray(i * slotBytes, (i + 1) * slotBytes),
    }));
  }

  /** The next one that is free. @throws Error when there is none before the signal, or too many wait already */
  async take(purpose: Purpose, signal: AbortSignal): Promise<Slot> {
    if (signal.aborted) throw new Error("it came too late");
    const slot = this.#free.length > keptFrom(purpose) ? this.#free.pop() : undefined;
    if (slot !== undefined) return slot;
    const waiting = this.#waiting[purpose];
    if (waiting.size >= mostWaiting) throw new Error("too many requests wait for it");
    let settle!: (slot: Slot | Error) => void; // set by the promise's constructor, which runs at once
    const given = new Promise<Slot | Error>((resolve) => (settle = resolve));
    const late = () => {
      if (waiting.delete(settle)) settle(new Error("it did not answer in time"));
    };
    waiting.add(settle);
    signal.addEventListener("abort", late);
    try {
      const outcome = await given;
      if (outcome instanceof Error) throw outcome;
      return outcome;
    } finally {
      signal.removeEventListener("abort", late);
    }
  }

  give(slot: Slot): void {
    for (const purpose of ["lookup", "payload"] as const) {
      const [next] = this.#waiting[purpose];
      if (next === undefined || this.#free.length < keptFrom(purpose)) continue;
      this.#waiting[purpose].delete(next);
      next(slot);
      return;
    }
    this.#free.push(slot);
  }

  /** Of a request that failed in a way that may leave bytes on their way: nobody gets it before they have come. */
  rest(slot: Slot): void {
    if (this.#isClosed) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      this.give(slot);
    }, restMs).unref();
    this.#timers.add(timer);
  }

  /** Nobody touches any slot after that. */
  close(): void {
    assert(!this.#isClosed, "slots are closed once");
    this.#isClosed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    for (const waiting of Object.values(this.#waiting)) {
      for (const settle of waiting) settle(new Error("it was closed"));
      waiting.clear();
    }
    this.#free.length = 0;
    unmap(this.#pointer, slotBytes * slotCount);
    closeSync(this.file);
  }
}

/** How many free slots are not for it. */
function keptFrom(purpose: Purpose): number {
  return purpose === "payload" ? lookupSlots : 0;
}
