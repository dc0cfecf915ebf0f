/** Searching, cutting and joining texts as Python's `str` does. */
import { isSpace } from "./characters.ts";
import type { Run } from "./run.ts";
import { TemplateError } from "./template-error.ts";
import { type Text, TextBuilder } from "./text.ts";

export type Side = "left" | "right" | "both";

/** Without the characters of `set` at its ends; white space when there is no set. */
export function strip(run: Run, text: Text, side: Side, set?: Text): Text {
  const characters = set === undefined ? undefined : new Set(set.text);
  const goes = (character: string) => (characters === undefined ? isSpace(character) : characters.has(character));
  const whole = text.text;
  let from = 0;
  let to = whole.length;
  if (side !== "right") {
    while (from < to) {
      const character = String.fromCodePoint(whole.codePointAt(from)!); // before the end
      if (!goes(character)) break;
      from += character.length;
    }
  }
  if (side !== "left") {
    while (to > from) {
      const isPair = to - 2 >= from && whole.codePointAt(to - 2)! > 0xff_ff;
      const character = whole.slice(isPair ? to - 2 : to - 1, to);
      if (!goes(character)) break;
      to -= character.length;
    }
  }
  run.spend((whole.length - (to - from)) / 2); // each was looked at by itself
  return text.cut(from, to);
}

/** At white space (no separator) or at every separator; from the right with `fromRight`. A negative limit is none. */
export function split(
  run: Run,
  text: Text,
  options: { separator?: Text | undefined; limit: number; fromRight: boolean },
): Text[] {
  const { separator, fromRight } = options;
  run.room(text.text.length);
  const limit = options.limit < 0 ? Number.POSITIVE_INFINITY : options.limit;
  if (separator === undefined) return splitAtSpace(run, text, limit, fromRight);
  const mark = separator.text;
  if (mark === "") throw new TemplateError("empty separator");
  const parts: Text[] = [];
  const { text: whole } = text;
  if (fromRight) {
    let to = whole.length;
    while (parts.length < limit) {
      const at = to < mark.length ? -1 : whole.lastIndexOf(mark, to - mark.length);
      if (at === -1) break;
      parts.push(text.cut(at + mark.length, to));
      run.spend(1);
      to = at;
    }
    parts.push(text.cut(0, to));
    return parts.toReversed();
  }
  let from = 0;
  while (parts.length < limit) {
    const at = whole.indexOf(mark, from);
    if (at === -1) break;
    parts.push(text.cut(from, at));
    run.spend(1);
    from = at + mark.length;
  }
  parts.push(text.cut(from));
  return parts;
}

function splitAtSpace(run: Run, text: Text, limit: number, fromRight: boolean): Text[] {
  const whole = text.text;
  const words: [from: number, to: number][] = [];
  let at = 0;
  while (at < whole.length) {
    while (at < whole.length && isSpace(whole[at]!)) at += 1;
    if (at === whole.length) break;
    const from = at;
    while (at < whole.length && !isSpace(whole[at]!)) at += 1;
    words.push([from, at]);
    run.spend(1);
  }
  if (words.length <= limit) return words.map(([from, to]) => text.cut(from, to));
  const cut = (range: [from: number, to: number]) => text.cut(...range);
  // The part that is not split keeps the space at its far end.
  if (fromRight) {
    const [, end] = words[words.length - limit - 1]!; // fewer are kept than there are
    return [text.cut(0, end), ...words.slice(words.length - limit).map(cut)];
  }
  const [start] = words[limit]!; // fewer are kept than there are
  return [...words.slice(0, limit).map(cut), text.cut(start)];
}

const lineEnd = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g;

export function splitLines(run: Run, text: Text, keepEnds: boolean): Text[] {
  run.room(text.text.length);
  const lines: Text[] = [];
  let from = 0;
  for (const { 0: end, index } of text.text.matchAll(lineEnd)) {
    lines.push(text.cut(from, keepEnds ? index + end.length : index));
    run.spend(1);
    from = index + end.length;
  }
  if (from < text.text.length) lines.push(text.cut(from));
  return lines;
}

/** Every `old` by `replacement`, `limit` times at most; a negative limit is none. */
export function replace(run: Run, text: Text, old: Text, replacement: Text, limit = -1): Text {
  run.room(text.text.length);
  const builder = new TextBuilder();
  const most = limit < 0 ? Number.POSITIVE_INFINITY : limit;
  let done = 0;
  let from = 0;
  const put = (upTo: number) => {
    builder.add(text.cut(from, upTo)).add(replacement);
    done += 1;
    run.spend(1);
    run.fits(builder.length);
  };
  const places = old.text === "" ? everyPlace(text, most) : placesOf(text.text, old.text, most);
  for (const at of places) {
    put(at);
    from = at + old.text.length;
  }
  if (done === 0) return text;
  run.room(builder.length);
  return builder.add(text.cut(from)).build(text.isMarkup);
}

function* everyPlace(text: Text, most: number): Generator<number> {
  const count = Math.min(most, text.length + 1);
  for (let index = 0; index < count; index += 1) yield text.at(index);
}

function* placesOf(text: string, part: string, most: number): Generator<number> {
  let found = 0;
  for (let at = text.indexOf(part); at !== -1; at = text.indexOf(part, at + part.length)) {
    found += 1;
    if (found > most) return;
    yield at;
  }
}

export function join(run: Run, separator: Text, parts: readonly Text[]): Text {
  const builder = new TextBuilder();
  let length = 0;
  for (const part of parts) length += part.text.length + separator.text.length;
  run.room(length);
  run.spend(parts.length);
  for (const [index, part] of parts.entries()) {
    if (index > 0) builder.add(separator);
    builder.add(part);
  }
  return builder.build(separator.isMarkup);
}
