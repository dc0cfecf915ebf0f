/**
 * Which bytes of the pool's file have pages. They come ahead of need, by a thread beside the event loop, so that a start
 * takes no time for it and a reservation under load does not wait for the kernel to zero memory (1 ms for 4 MiB); what
 * has not come in time is allocated on the spot. They go when an extent leaves the capacity.
 *
 *     extent   │ pages ............ │ none yet ...... │        grow: to the end of a slot, or by 4 MiB if there is room
 *              └── allocated(index) ┘                          populate: by 4 MiB, one step after the other, aside
 */
import { describe } from "../../errors.ts";
import { extentBytes } from "../../ffi/pool-mapping.ts";
import { allocate, allocateAside, punchHole } from "../../ffi/posix.ts";
import type { Log } from "../../log.ts";
import { notesBytes } from "./pool-table.ts";

const stepBytes = 4 * 1024 * 1024;

export interface PoolMemoryOptions {
  readonly file: number;
  /** Of all extents; the notes follow them. */
  readonly bytes: number;
  readonly pageBytes: number;
  readonly log: Log;
  /** The extent that wants its pages most; undefined when all that is wanted has them. */
  readonly next: () => number | undefined;
  /** An extent has more pages than before, or fewer. */
  readonly onChange: (index: number) => void;
}

export class PoolMemory {
  readonly #options: PoolMemoryOptions;
  /** Bytes from each extent's start that have pages. They stay when the extent changes its class. */
  readonly #allocated: number[];
  /** Extents that gave their pages up since the thread was sent there. */
  readonly #givenUp = new Set<number>();
  #work = Promise.resolve();
  #running = false;
  #closed = false;

  constructor(options: PoolMemoryOptions) {
    this.#options = options;
    this.#allocated = Array.from({ length: options.bytes / extentBytes }, () => 0);
  }

  get allocatedBytes(): number {
    return this.#allocated.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** From the start of an extent, bytes with pages. */
  allocated(index: number): number {
    return this.#allocated[index]!; // one per extent
  }

  isWhole(index: number): boolean {
    return this.allocated(index) === extentBytes;
  }

  /** An adopted extent has these pages already. */
  found(index: number, bytes: number): void {
    this.#allocated[index] = bytes;
  }

  /** Gives the first `end` bytes of an extent their pages, and more where there is room. @returns false when there is none. */
  grow(index: number, end: number): boolean {
    const have = this.allocated(index);
    if (end <= have) return true;
    const least = this.#wholePages(end);
    const wanted = Math.min(extentBytes, Math.max(least, have + stepBytes));
    for (const upTo of wanted === least ? [least] : [wanted, least]) {
      if (allocate(this.#options.file, index * extentBytes + have, upTo - have) === "full") continue;
      this.#allocated[index] = upTo;
      this.#options.onChange(index);
      return true;
    }
    return false;
  }

  /** Gives the notes of an extent their pages. */
  growNotes(index: number, bytes: number): boolean {
    return allocate(this.#options.file, this.#notesAt(index), this.#wholePages(bytes)) === "allocated";
  }

  /** Gives all pages of an extent and its notes back to the system. */
  giveUp(index: number): void {
    const have = this.allocated(index);
    if (have === 0) return;
    this.#givenUp.add(index);
    // Before the pages go: whoever adopts the file must not count on them.
    this.#allocated[index] = 0;
    this.#options.onChange(index);
    punchHole(this.#options.file, this.#notesAt(index), notesBytes);
    if (punchHole(this.#options.file, index * extentBytes, extentBytes) === "kept") this.#allocated[index] = have;
  }

  /** There may be something to allocate ahead of need. */
  populate(): void {
    if (this.#closed || this.#running) return;
    this.#work = this.#run().catch((error: unknown) => {
      this.#closed = true;
      this.#options.log.warn(`cannot allocate memory ahead of need: ${describe(error)}; going on without`);
    });
  }

  /** Resolves when the file is not touched any more. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#work;
  }

  async #run(): Promise<void> {
    this.#running = true;
    for (let index = this.#options.next(); index !== undefined && !this.#closed; index = this.#options.next()) {
      this.#givenUp.delete(index);
      const have = this.allocated(index);
      const upTo = Math.min(extentBytes, have + stepBytes);
      const offset = index * extentBytes;
      if ((await allocateAside(this.#options.file, offset + have, upTo - have)) === "full") break;
      if (this.#closed) break;
      if (this.#givenUp.has(index)) {
        // The pages may have come after that. An extent that is in use again has begun anew, and is left alone.
        if (this.allocated(index) === 0) punchHole(this.#options.file, offset + have, upTo - have);
      } else if (this.allocated(index) < upTo) {
        this.#allocated[index] = upTo;
        this.#options.onChange(index);
      }
    }
    // In the same step as the last question: whoever calls after that is heard.
    this.#running = false;
  }

  #notesAt(index: number): number {
    return this.#options.bytes + index * notesBytes;
  }

  #wholePages(bytes: number): number {
    return Math.ceil(bytes / this.#options.pageBytes) * this.#options.pageBytes;
  }
}
