/**
 * A column of numbers that grows without being copied: pages of a typed array, made as they are first written.
 *
 * What was never written reads as 0. One number costs its width and nothing else, at ten million as at ten.
 */
const pageRows = 2 ** 14;
const pageShift = 14;

type TypedArray = Uint8Array | Int32Array | Float64Array;

export class PagedColumn {
  readonly #make: (rows: number) => TypedArray;
  readonly #pages: (TypedArray | undefined)[] = [];

  private constructor(make: (rows: number) => TypedArray) {
    this.#make = make;
  }

  static bytes(): PagedColumn {
    return new PagedColumn((rows) => new Uint8Array(rows));
  }

  static integers(): PagedColumn {
    return new PagedColumn((rows) => new Int32Array(rows));
  }

  static doubles(): PagedColumn {
    return new PagedColumn((rows) => new Float64Array(rows));
  }

  get(row: number): number {
    return this.#pages[row >>> pageShift]?.[row & (pageRows - 1)] ?? 0;
  }

  set(row: number, value: number): void {
    const page = row >>> pageShift;
    while (this.#pages.length <= page) this.#pages.push(undefined);
    (this.#pages[page] ??= this.#make(pageRows))[row & (pageRows - 1)] = value;
  }
}
