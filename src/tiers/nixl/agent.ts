/**
 * One agent of NIXL with one plugin and one stretch of memory, which is registered once. For a thread of its own: nothing here waits,
 * but {@link NixlAgent.isThere} and {@link NixlAgent.close} do.
 *
 * A transfer writes into the agent's memory until it has ended, whatever became of whoever wanted it. So the memory is nobody
 * else's, and a transfer's bookkeeping is freed only when it has ended.
 */
import type { Nixl, Stretch } from "../../ffi/nixl.ts";
import type { Pointer } from "../../ffi/posix.ts";

/** A file that is open, or an object by its name. */
export type Target = { readonly file: number } | { readonly object: string };

export interface Transfer {
  /** Looks at how far it is. */
  poll(): "running" | "done" | "failed";
  /** Frees what it needed. Only when it has ended. */
  free(): void;
}

export interface AgentOptions {
  readonly nixl: Nixl;
  readonly plugin: "POSIX" | "OBJ";
  readonly parameters: Readonly<Record<string, string>>;
  readonly memory: { readonly address: Pointer; readonly bytes: number };
}

/**
 * Of a file, at a time, as `cp` does: written 4 MiB at once, also by a plain `write`, a new file took up to four times as long (ext4 of
 * Linux 6.18, on a busy machine). An object is written whole.
 */
const fileStepBytes = 256 * 1024;
/** Of agents that never speak to another one. */
const name = "reprise";

export class NixlAgent {
  readonly #nixl: Nixl;
  readonly #memory: AgentOptions["memory"];
  readonly #agent: Pointer;
  readonly #backend: Pointer;
  readonly #options: Pointer;
  #lastObject = 0;

  /** @throws NixlError */
  constructor({ nixl, plugin, parameters, memory }: AgentOptions) {
    this.#nixl = nixl;
    this.#memory = memory;
    this.#agent = nixl.createAgent(name);
    try {
      this.#backend = nixl.createBackend(this.#agent, plugin, parameters);
      this.#options = nixl.optionsFor(this.#backend);
      const list = nixl.registrable("dram", memory, 0);
      nixl.register(this.#agent, list, this.#options);
      nixl.destroyRegistrable(list);
    } catch (error) {
      nixl.destroyAgent(this.#agent);
      throw error;
    }
  }

  /**
   * Moves bytes between the agent's memory from `offset` on and the beginning of a file or an object.
   *
   * @throws NixlError when it did not begin
   */
  begin(operation: "read" | "write", target: Target, { offset, bytes }: { offset: number; bytes: number }): Transfer {
    const nixl = this.#nixl;
    const kind = "file" in target ? "file" : "object";
    const id = "file" in target ? target.file : (this.#lastObject += 1);
    const undo: (() => void)[] = [];
    const free = () => {
      for (let each = undo.pop(); each !== undefined; each = undo.pop()) each();
    };
    try {
      const list = nixl.registrable(kind, { address: 0n, bytes }, id, "file" in target ? "" : target.object);
      undo.push(() => nixl.destroyRegistrable(list));
      nixl.register(this.#agent, list, this.#options);
      undo.push(() => nixl.deregister(this.#agent, list, this.#options));
      const steps = stepsOf(bytes, "file" in target ? fileStepBytes : bytes);
      const from = this.#memory.address + BigInt(offset);
      const local = nixl.movable(
        "dram",
        steps.map((step) => ({ ...step, address: from + step.address })),
        0,
      );
      undo.push(() => nixl.destroyMovable(local));
      const remote = nixl.movable(kind, steps, id);
      undo.push(() => nixl.destroyMovable(remote));
      const transfer = nixl.createTransfer(this.#agent, operation, [local, remote], name, this.#options);
      undo.push(() => nixl.destroyTransfer(this.#agent, transfer));
      let state = nixl.post(this.#agent, transfer, this.#options);
      const poll = () => (state = state === "running" ? nixl.statusOf(this.#agent, transfer) : state);
      return { poll, free };
    } catch (error) {
      free();
      throw error;
    }
  }

  /** Asks the store and waits: some milliseconds where it answers, half a minute where it does not. @throws NixlError */
  isThere(object: string): boolean {
    const list = this.#nixl.registrable("object", { address: 0n, bytes: 0 }, 0, object);
    try {
      return this.#nixl.isThere(this.#agent, list, this.#options);
    } finally {
      this.#nixl.destroyRegistrable(list);
    }
  }

  /** Only when all transfers have ended. */
  close(): void {
    this.#nixl.destroyOptions(this.#options);
    this.#nixl.destroyBackend(this.#backend);
    this.#nixl.destroyAgent(this.#agent);
  }
}

function stepsOf(bytes: number, stepBytes: number): Stretch[] {
  const count = Math.max(1, Math.ceil(bytes / stepBytes));
  return Array.from({ length: count }, (_, i) => ({
    address: BigInt(i * stepBytes),
    bytes: Math.min(stepBytes, bytes - i * stepBytes),
  }));
}
