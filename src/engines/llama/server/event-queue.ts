/**
 * Values from a channel for one reader, in order, with an end that may be an error.
 */
export class EventQueue<T> {
  readonly #values: T[] = [];
  #failure: { readonly error: unknown } | undefined;
  #wake: (() => void) | undefined;

  push(value: T): void {
    this.#values.push(value);
    this.#wake?.();
  }

  /** The reader gets what is there already, then this error. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake?.();
  }

  /** @throws what {@link fail} was given, if it was. */
  mustGoOn(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** The next value. @throws what {@link fail} was given. */
  async next(): Promise<T> {
    for (;;) {
      if (this.#values.length > 0) return this.#values.shift()!; // not empty
      if (this.#failure !== undefined) throw this.#failure.error;
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = undefined;
    }
  }
}
