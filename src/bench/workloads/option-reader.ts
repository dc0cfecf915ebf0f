/**
 * Options of a workload: texts become numbers and choices, and all faults are reported together.
 *
 * Every reading method returns a usable value also after a fault, so that a workload reads all its options in a row and
 * then calls `done()` once.
 */
import { assert, RepriseError } from "../../errors.ts";
import type { WorkloadOptions } from "./workload-definition.ts";

export class OptionReader {
  readonly #options: WorkloadOptions;
  readonly #given: Readonly<Record<string, string>>;
  readonly #faults: string[] = [];

  constructor(options: WorkloadOptions, given: Readonly<Record<string, string>>) {
    this.#options = options;
    this.#given = given;
  }

  text(name: string): string {
    const text = this.#given[name] ?? this.#options[name]?.default;
    assert(text !== undefined, `--${name} is read and not declared`);
    return text;
  }

  whole(name: string, { atLeast = 1 }: { atLeast?: number } = {}): number {
    const value = Number(digits(this.text(name)));
    if (Number.isSafeInteger(value) && value >= atLeast) return value;
    return this.fault(name, `wants a whole number, ${atLeast} or more`, atLeast);
  }

  /** A limit that may be absent: "none" is Infinity. */
  wholeOrNone(name: string): number {
    if (this.text(name) === "none") return Infinity;
    const value = Number(digits(this.text(name)));
    return Number.isSafeInteger(value) && value >= 1
      ? value
      : this.fault(name, `wants a whole number, 1 or more, or "none"`, Infinity);
  }

  above0(name: string): number {
    const value = numberOf(this.text(name));
    return Number.isFinite(value) && value > 0 ? value : this.fault(name, "wants a number above 0", 1);
  }

  atLeast0(name: string): number {
    const value = numberOf(this.text(name));
    return Number.isFinite(value) && value >= 0 ? value : this.fault(name, "wants a number, 0 or more", 0);
  }

  /** From 0 to 1. */
  share(name: string): number {
    const value = numberOf(this.text(name));
    return value >= 0 && value <= 1 ? value : this.fault(name, "wants a share from 0 to 1", 0);
  }

  oneOf<Choice extends string>(name: string, choices: readonly [Choice, ...Choice[]]): Choice {
    const chosen = choices.find((each) => each === this.text(name));
    return chosen ?? this.fault(name, `wants one of ${choices.join(", ")}`, choices[0]);
  }

  /** Notes a fault, and lets reading go on with `instead`. */
  fault<Value>(name: string, wanted: string, instead: Value): Value {
    this.#faults.push(`--${name} ${wanted}: "${this.text(name)}"`);
    return instead;
  }

  /** @throws RepriseError BAD_CONFIG listing every fault, one a line. */
  done(): void {
    if (this.#faults.length > 0) throw new RepriseError("BAD_CONFIG", this.#faults.join("\n"));
  }
}

/** `Number` takes "", "1e3" and "0x10" too; people who count mean digits. */
function digits(text: string): string {
  return /^\d+$/.test(text) ? text : "NaN";
}

function numberOf(text: string): number {
  return /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
}
