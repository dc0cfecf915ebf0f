/**
 * The pool's memory as a GPU reads and writes it by itself: extents are registered when something is copied from or to them, and the others
 * while nothing else is to be done, their pages being made on another thread first. What cannot be registered is copied all the same, more
 * slowly.
 */
import type { CudaMemory } from "../../../ffi/cuda-memory.ts";
import { addressOf, makePages } from "../../../ffi/posix.ts";

export class PinnedExtents {
  readonly #memory: Pick<CudaMemory, "register" | "unregister">;
  /** Those that were given, by the memory that views of them have; what was tried with each. */
  readonly #extents = new Map<ArrayBufferLike, "unknown" | "registered" | "refused">();
  #isResting = false;
  #work: Promise<void> | undefined;

  constructor(memory: Pick<CudaMemory, "register" | "unregister">) {
    this.#memory = memory;
  }

  /** Says which there are. */
  prepare(extents: Iterable<Uint8Array>): void {
    for (const { buffer } of extents) this.#extents.set(buffer, "unknown");
  }

  /** Something is about to be copied from or to this memory. */
  use(memory: ArrayBufferLike): void {
    if (this.#extents.get(memory) === "unknown") this.#register(memory);
  }

  /** Nothing is to be done: goes on until {@link wake}, or until all are registered. */
  rest(): void {
    this.#isResting = true;
    this.#work ??= this.#registerAll().finally(() => (this.#work = undefined));
  }

  /** Something is to be done. */
  wake(): void {
    this.#isResting = false;
  }

  /** Forgets them: none is registered when it resolves. */
  async letGo(): Promise<void> {
    this.wake();
    await this.#work;
    for (const [memory, is] of this.#extents) if (is === "registered") this.#memory.unregister(addressOf(memory));
    this.#extents.clear();
  }

  async #registerAll(): Promise<void> {
    for (const [memory, is] of this.#extents) {
      if (is !== "unknown") continue;
      if (!this.#isResting) return;
      await makePages(addressOf(memory), memory.byteLength);
      this.use(memory);
      if (this.#extents.get(memory) === "refused") return; // the others would be as well
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #register(memory: ArrayBufferLike): void {
    const isTaken = this.#memory.register(addressOf(memory), memory.byteLength);
    this.#extents.set(memory, isTaken ? "registered" : "refused");
  }
}
