/**
 * A string of the template language that knows which of its characters were typed by people.
 *
 * Python counts characters, JavaScript UTF-16 units: positions named "at" are units, those named "index" are characters.
 * Every operation keeps the spans exactly, or calls everything typed where it cannot: a wrong "typed" costs a token more, a
 * wrong "own" would open the door.
 */

/** from, to, from, to, … in UTF-16 units: ascending, apart from each other, none empty. */
export type Spans = readonly number[];

const nothing: Spans = [];

export class Text {
  readonly text: string;
  readonly typed: Spans;
  /** Python's Markup: what is added to it is escaped for HTML. */
  readonly isMarkup: boolean;
  #isNarrow: boolean | undefined;
  #starts: Uint32Array | undefined;

  constructor(text: string, typed: Spans = nothing, isMarkup = false) {
    this.text = text;
    this.typed = typed;
    this.isMarkup = isMarkup;
  }

  /** What people typed. */
  static typed(text: string): Text {
    return new Text(text, text === "" ? nothing : [0, text.length]);
  }

  get isTyped(): boolean {
    return this.typed.length > 0;
  }

  /** Characters. */
  get length(): number {
    return this.isNarrow ? this.text.length : this.#places().length - 1;
  }

  /** Is every character one unit? */
  get isNarrow(): boolean {
    this.#isNarrow ??= !surrogates.test(this.text);
    return this.#isNarrow;
  }

  /** The unit where character `index` begins; the end for the index behind the last. */
  at(index: number): number {
    return this.isNarrow ? index : this.#places()[index]!;
  }

  /** The index of the character that begins at unit `at`. */
  indexOf(at: number): number {
    if (this.isNarrow) return at;
    const places = this.#places();
    let low = 0;
    let high = places.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (places[middle]! < at) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The part between two units. */
  cut(from: number, to: number = this.text.length): Text {
    if (from <= 0 && to >= this.text.length) return this;
    if (from >= to) return new Text("", nothing, this.isMarkup);
    const part = new Text(this.text.slice(from, to), this.#typedBetween(from, to), this.isMarkup);
    // A part that is cut again and again is not looked through each time.
    if (this.#isNarrow === true) part.#isNarrow = true;
    return part;
  }

  #typedBetween(from: number, to: number): Spans {
    const { typed } = this;
    if (typed.length === 0) return nothing;
    if (typed.length === 2 && typed[0]! <= from && to <= typed[1]!) return [0, to - from];
    const spans: number[] = [];
    for (let span = firstBehind(typed, from); span < typed.length && typed[span]! < to; span += 2) {
      spans.push(Math.max(typed[span]!, from) - from, Math.min(typed[span + 1]!, to) - from);
    }
    return spans;
  }

  /** The part between two characters. */
  slice(from: number, to: number): Text {
    return this.cut(this.at(from), this.at(to));
  }

  /** Its characters, one text each. */
  characters(): Text[] {
    return Array.from({ length: this.length }, (_, index) => this.slice(index, index + 1));
  }

  /** The same places typed in another text of the same length; all of it where the length differs. */
  mapped(text: string): Text {
    if (text.length === this.text.length) return new Text(text, this.typed, this.isMarkup);
    return this.isTyped
      ? new Text(text, Text.typed(text).typed, this.isMarkup)
      : new Text(text, nothing, this.isMarkup);
  }

  asMarkup(isMarkup = true): Text {
    return new Text(this.text, this.typed, isMarkup);
  }

  #places(): Uint32Array {
    if (this.#starts !== undefined) return this.#starts;
    const { text } = this;
    const starts = new Uint32Array(text.length + 1);
    let count = 0;
    for (let at = 0; at < text.length; count += 1) {
      starts[count] = at;
      at += text.codePointAt(at)! > 0xff_ff ? 2 : 1;
    }
    starts[count] = text.length;
    this.#starts = starts.subarray(0, count + 1);
    return this.#starts;
  }
}

export const emptyText = new Text("");

const surrogates = /[\ud800-\udfff]/;

/** The first span that ends behind `at`. */
function firstBehind(typed: Spans, at: number): number {
  let low = 0;
  let high = typed.length / 2;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (typed[2 * middle + 1]! <= at) low = middle + 1;
    else high = middle;
  }
  return 2 * low;
}

/** Puts texts behind each other. */
export class TextBuilder {
  #text = "";
  readonly #typed: number[] = [];

  get length(): number {
    return this.#text.length;
  }

  add(part: Text): this {
    const offset = this.#text.length;
    this.#text += part.text;
    for (let span = 0; span < part.typed.length; span += 2)
      this.#mark(offset + part.typed[span]!, offset + part.typed[span + 1]!);
    return this;
  }

  /** Text of the template. */
  own(part: string): this {
    this.#text += part;
    return this;
  }

  /** Text made of something that was typed when `isTyped` says so. */
  marked(part: string, isTyped: boolean): this {
    const offset = this.#text.length;
    this.#text += part;
    if (isTyped && part !== "") this.#mark(offset, offset + part.length);
    return this;
  }

  build(isMarkup = false): Text {
    return new Text(this.#text, this.#typed, isMarkup);
  }

  #mark(from: number, to: number): void {
    const last = this.#typed.length - 1;
    if (last >= 0 && this.#typed[last] === from) this.#typed[last] = to;
    else this.#typed.push(from, to);
  }
}

export function concat(...parts: readonly Text[]): Text {
  if (parts.length === 2 && parts[0]!.text === "") return parts[1]!;
  const builder = new TextBuilder();
  for (const part of parts) builder.add(part);
  return builder.build();
}
