/** The few objects of the template language that can change: namespaces, loops and cyclers. */
import { equals } from "./operators.ts";
import type { Run } from "./run.ts";
import { TemplateError } from "./template-error.ts";
import { Callable, orElse, Properties, Undefined, type Value } from "./values.ts";

export class Namespace extends Properties {
  readonly kind = "Namespace";
  readonly #values: Map<string, Value>;

  constructor(values: Iterable<readonly [string, Value]>) {
    super();
    this.#values = new Map(values);
  }

  get(name: string): Value | undefined {
    return this.#values.get(name);
  }

  set(name: string, value: Value): void {
    this.#values.set(name, value);
  }
}

export class Cycler extends Properties {
  readonly kind = "Cycler";
  readonly #items: readonly Value[];
  #at = 0;

  constructor(items: readonly Value[]) {
    super();
    if (items.length === 0) throw new TemplateError("at least one item has to be provided");
    this.#items = items;
  }

  get(name: string): Value | undefined {
    const current = this.#items[this.#at]!; // always one of them
    if (name === "current") return current;
    if (name === "next") {
      return new Callable("next", () => {
        const item = this.#items[this.#at]!; // always one of them
        this.#at = (this.#at + 1) % this.#items.length;
        return item;
      });
    }
    if (name !== "reset") return undefined;
    return new Callable("reset", () => {
      this.#at = 0;
      return null;
    });
  }
}

/** What `loop` is in the body of a loop. */
export class Loop extends Properties {
  readonly kind = "LoopContext";
  /** Runs the loop's body over other items, for a loop that is declared recursive. */
  readonly again: Callable | undefined;
  readonly #run: Run;
  readonly #items: readonly Value[];
  readonly #depth: number;
  #index = 0;
  #changed: readonly Value[] | undefined;

  constructor(run: Run, items: readonly Value[], depth: number, again: Callable | undefined) {
    super();
    this.#run = run;
    this.#items = items;
    this.#depth = depth;
    this.again = again;
  }

  set index(index: number) {
    this.#index = index;
  }

  get(name: string): Value | undefined {
    const index = this.#index;
    const { length } = this.#items;
    switch (name) {
      case "index":
        return index + 1;
      case "index0":
        return index;
      case "revindex":
        return length - index;
      case "revindex0":
        return length - index - 1;
      case "first":
        return index === 0;
      case "last":
        return index === length - 1;
      case "length":
        return length;
      case "depth":
        return this.#depth;
      case "depth0":
        return this.#depth - 1;
      case "previtem":
        return orElse(this.#items[index - 1], () => new Undefined("there is no previous item"));
      case "nextitem":
        return orElse(this.#items[index + 1], () => new Undefined("there is no next item"));
      case "cycle":
        return new Callable("cycle", ({ positional }) => {
          if (positional.length === 0) throw new TemplateError("no items for cycling given");
          return positional[index % positional.length]!;
        });
      case "changed":
        return new Callable("changed", ({ positional }) => this.#hasChanged(positional));
      default:
        return undefined;
    }
  }

  #hasChanged(values: readonly Value[]): boolean {
    const last = this.#changed;
    if (last?.length === values.length && last.every((value, index) => equals(this.#run, value, values[index]!))) {
      return false;
    }
    this.#changed = values;
    return true;
  }
}
