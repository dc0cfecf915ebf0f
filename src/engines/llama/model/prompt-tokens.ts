/**
 * From a prompt's text to its tokens: control tokens come from the template's own text only.
 *
 *     template    <|user|>\n            <|end|>\n<|assistant|>\n
 *     typed                  a<|end|>b
 *     special on  ──────────           ─────────────────────────
 *     special off           ───────────
 *
 * A text is cut at control tokens only, where llama.cpp cuts it as well: its tokens are those of the whole text. Long
 * fragments are tokenized by themselves, so that their tokens may be known; what lies between them is left whole.
 */
import type { PromptText } from "../../../chat/prompt-text.ts";

/** What tokenizing a prompt needs of a model. */
export interface PromptVocabulary {
  /** The texts of all tokens that mean something by themselves (attribute CONTROL or UNKNOWN). */
  readonly controlTexts: readonly string[];
  /** Those of them that swallow the white space before them, or behind them (LSTRIP, RSTRIP). */
  readonly stripsBefore: ReadonlySet<string>;
  readonly stripsBehind: ReadonlySet<string>;
  /** No other token that llama.cpp cuts out of a text overlaps a control token's text. */
  readonly cutsAtControlsFirst: boolean;
  /** `special`: texts of control tokens become these tokens. */
  tokenize(text: string, options: { special: boolean }): Uint32Array;
}

interface Range {
  readonly from: number;
  readonly to: number;
}

/** From this length on, in UTF-16 units, a fragment is tokenized by itself. */
export const longFragment = 1024;

/**
 * The tokens of `prompt`. Of the control tokens' texts in it those count that touch no typed character; the longest first,
 * as llama.cpp finds them. A fragment between two of these that has a typed one in it is tokenized without special tokens.
 */
export function tokenizePrompt(prompt: PromptText, vocabulary: PromptVocabulary): Uint32Array {
  // UTF-8 has no halves of characters: what becomes of them decides what is found.
  const text = prompt.text.replace(loneSurrogates, "\ufffd");
  const { own, typed } = findControlTexts(text, prompt.typed, vocabulary.controlTexts);
  const controls = longestFirst(own);
  const fragments = between(controls, text.length);
  const withTyped = fragmentsWith(typed, fragments);
  const isLong = ({ from, to }: Range) => vocabulary.cutsAtControlsFirst && to - from >= longFragment;
  const parts: Uint32Array[] = [];
  let done = 0;
  for (const [index, fragment] of fragments.entries()) {
    const { from, to } = fragment;
    if (!withTyped.has(index) && (controls.length === 0 || !isLong(fragment))) continue;
    if (done < from) parts.push(vocabulary.tokenize(text.slice(done, from), { special: true }));
    const plain = stripped(text, { from, to }, { before: controls[index - 1], behind: controls[index] }, vocabulary);
    if (plain !== "") parts.push(vocabulary.tokenize(plain, { special: false }));
    done = to;
  }
  if (done < text.length) parts.push(vocabulary.tokenize(text.slice(done), { special: true }));
  return joined(parts);
}

const loneSurrogates = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Every place where a control token's text stands: alone those of the template, and the places that touch typed ones. */
function findControlTexts(
  text: string,
  typedRanges: PromptText["typed"],
  controlTexts: readonly string[],
): { own: Range[]; typed: Range[] } {
  const own: Range[] = [];
  const typed: { from: number; to: number }[] = [];
  if (typedRanges.length === 0) return { own, typed };
  const { root, firstUnit } = textTree(controlTexts);
  let next = 0;
  // A loop over all units would take longer than a millisecond where it is not compiled yet; this search always is.
  for (const { index: from } of text.matchAll(firstUnit)) {
    let node = root.children.get(text.charCodeAt(from));
    while (next < typedRanges.length && typedRanges[next]![1] <= from) next += 1;
    const typedFrom = typedRanges[next]?.[0] ?? Number.POSITIVE_INFINITY;
    for (let to = from + 1; node !== undefined; to += 1) {
      if (node.isEnd) {
        const last = typed.at(-1);
        if (to <= typedFrom) own.push({ from, to });
        else if (last !== undefined && from <= last.to) last.to = Math.max(last.to, to);
        else typed.push({ from, to });
      }
      node = to < text.length ? node.children.get(text.charCodeAt(to)) : undefined;
    }
  }
  return { own, typed };
}

interface TextNode {
  readonly children: Map<number, TextNode>;
  isEnd: boolean;
}

interface TextTree {
  readonly root: TextNode;
  /** Finds the places where one of the texts may begin. */
  readonly firstUnit: RegExp;
}

/** Of each vocabulary one is made, as long as the vocabulary lives. */
const textTrees = new WeakMap<readonly string[], TextTree>();

/** The texts by their UTF-16 units, so that one walk finds all that begin at a place. */
function textTree(texts: readonly string[]): TextTree {
  const known = textTrees.get(texts);
  if (known !== undefined) return known;
  const root: TextNode = { children: new Map(), isEnd: false };
  for (const text of texts) {
    let node = root;
    for (let at = 0; at < text.length; at += 1) {
      const unit = text.charCodeAt(at);
      let child = node.children.get(unit);
      if (child === undefined) {
        child = { children: new Map(), isEnd: false };
        node.children.set(unit, child);
      }
      node = child;
    }
    node.isEnd = node !== root;
  }
  const units = [...root.children.keys()].map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`);
  const tree = { root, firstUnit: new RegExp(`[${units.join("")}]`, "g") };
  textTrees.set(texts, tree);
  return tree;
}

/** Of places that overlap the longest holds, then the first; in the text's order. */
function longestFirst(places: readonly Range[]): Range[] {
  const taken: Range[] = [];
  for (const group of overlapping(places)) {
    if (group.length === 1) {
      taken.push(group[0]!);
      continue;
    }
    const chosen: Range[] = [];
    for (const place of group.toSorted((a, b) => b.to - b.from - (a.to - a.from) || a.from - b.from)) {
      if (chosen.every(({ from, to }) => to <= place.from || place.to <= from)) chosen.push(place);
    }
    taken.push(...chosen.sort((a, b) => a.from - b.from));
  }
  return taken;
}

/** Places in groups that have no character in common. */
function overlapping(places: readonly Range[]): Range[][] {
  const groups: Range[][] = [];
  let end = 0;
  for (const place of places) {
    if (groups.length > 0 && place.from < end) groups.at(-1)!.push(place);
    else groups.push([place]);
    end = Math.max(end, place.to);
  }
  return groups;
}

/** What lies before, between and behind the places; one more than there are places. */
function between(places: readonly Range[], length: number): Range[] {
  let from = 0;
  const fragments = places.map((place) => {
    const fragment = { from, to: place.from };
    from = place.to;
    return fragment;
  });
  return [...fragments, { from, to: length }];
}

/** Indices of the fragments that have a part of one of the places. */
function fragmentsWith(places: readonly Range[], fragments: readonly Range[]): Set<number> {
  const found = new Set<number>();
  let index = 0;
  for (const place of places) {
    while (index < fragments.length && fragments[index]!.to <= place.from) index += 1;
    for (let each = index; each < fragments.length && fragments[each]!.from < place.to; each += 1) {
      if (fragments[each]!.from < fragments[each]!.to) found.add(each);
    }
  }
  return found;
}

/** A fragment without the white space that the control tokens at its ends would have swallowed. */
function stripped(
  text: string,
  fragment: Range,
  ends: { before: Range | undefined; behind: Range | undefined },
  vocabulary: PromptVocabulary,
): string {
  const { before, behind } = ends;
  let plain = text.slice(fragment.from, fragment.to);
  if (before !== undefined && vocabulary.stripsBehind.has(text.slice(before.from, before.to))) {
    plain = plain.replace(/^[ \t-\r]+/, "");
  }
  if (behind !== undefined && vocabulary.stripsBefore.has(text.slice(behind.from, behind.to))) {
    let end = plain.length;
    while (end > 0 && " \t\n\v\f\r".includes(plain[end - 1]!)) end -= 1;
    plain = plain.slice(0, end);
  }
  return plain;
}

function joined(parts: readonly Uint32Array[]): Uint32Array {
  const all = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
