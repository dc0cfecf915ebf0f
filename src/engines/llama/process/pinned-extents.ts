/**
 * The pool's memory as a GPU reads and writes it by itself: extents are registered one after the other, in the background. What lies in
 * others is copied all the same, more slowly.
 */
import type { CudaMemory } from "../../../ffi/cuda-memory.ts";
import { addressOf } from "../../../ffi/posix.ts";

type Registering = Pick<CudaMemory, "canRegister" | "register" | "unregister">;

export class PinnedExtents {
  readonly #memory: Registering;
  readonly #registered: bigint[] = [];
  #isGone = false;
  #work: Promise<void> = Promise.resolve();

  constructor(memory: Registering) {
    this.#memory = memory;
  }

  /** Begins to register all of them. */
  prepare(extents: Iterable<Uint8Array>): void {
    if (!this.#memory.canRegister) return;
    this.#work = this.#work.then(() => this.#registerAll(extents));
  }

  /** Ends with it: nothing is registered when it resolves. */
  async letGo(): Promise<void> {
    this.#isGone = true;
    await this.#work;
    this.#isGone = false;
    for (const at of this.#registered.splice(0)) this.#memory.unregister(at);
  }

  async #registerAll(extents: Iterable<Uint8Array>): Promise<void> {
    for (const extent of extents) {
      if (this.#isGone) return;
      const at = addressOf(extent);
      if (!(await this.#memory.register(at, extent.length))) return; // the others would be refused as well
      this.#registered.push(at);
    }
  }
}
