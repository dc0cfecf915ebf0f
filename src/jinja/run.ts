/**
 * What one rendering may take. Templates come with downloaded models: one that never ends, or makes gigabytes, ends here.
 *
 * A step is about as much as looking at one value, or at thirty-two characters; a million of them take some 50 ms.
 */
import { TemplateError } from "./template-error.ts";

export interface Limits {
  readonly steps: number;
  /** Of one text, in UTF-16 units; the output is one. */
  readonly textLength: number;
}

/** Macros and recursive loops inside each other. */
const deepest = 100;
const unitsPerStep = 32;

export class Run {
  readonly #textLength: number;
  #steps: number;
  #depth = 0;

  constructor(limits: Limits) {
    this.#steps = limits.steps;
    this.#textLength = limits.textLength;
  }

  /** @throws TemplateError when the steps are used up. */
  spend(steps: number): void {
    this.#steps -= steps;
    if (this.#steps < 0) throw new TemplateError("the template takes too long: it was stopped");
  }

  /** Asks before a text of `units` is made. @throws TemplateError when that is too long, or too much. */
  room(units: number): void {
    this.fits(units);
    this.spend(units / unitsPerStep);
  }

  /** @throws TemplateError when a text of `units` is longer than may be. */
  fits(units: number): void {
    if (!(units <= this.#textLength)) {
      throw new TemplateError(`the template makes a text of more than ${this.#textLength} characters: it was stopped`);
    }
  }

  /** Runs `body` one level deeper. */
  deeper<T>(body: () => T): T {
    this.#depth += 1;
    if (this.#depth > deepest)
      throw new TemplateError(`macros or loops call each other more than ${deepest} levels deep`);
    try {
      return body();
    } finally {
      this.#depth -= 1;
    }
  }
}
