/** Names and their values: each body of a loop, macro or block has a scope of its own, and reads those around it. */
import type { Value } from "./values.ts";

export class Scope {
  readonly #names = new Map<string, Value>();
  readonly #around: Scope | undefined;

  constructor(around?: Scope) {
    this.#around = around;
  }

  get(name: string): Value | undefined {
    const own = this.#names.get(name);
    return own === undefined && this.#around !== undefined ? this.#around.get(name) : own;
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value);
  }
}
