/** The methods of Python's `str`. */
import { mustBeText, take } from "./arguments.ts";
import { isPrintable, isSpace } from "./characters.ts";
import { escapeHtml } from "./html.ts";
import { itemsOf } from "./operators.ts";
import type { Run } from "./run.ts";
import { type Access, formatString } from "./string-format.ts";
import { join, replace, type Side, split, splitLines, strip } from "./string-search.ts";
import { TemplateError } from "./template-error.ts";
import { emptyText, Text, TextBuilder } from "./text.ts";
import { type Arguments, Dict, isTrue, List, Tuple, typeName, type Value, wholeNumber } from "./values.ts";

type Method = (text: Text, given: Arguments, run: Run, access: Access) => Value;

const methods: ReadonlyMap<string, Method> = new Map<string, Method>([
  ["lower", (text) => text.mapped(text.text.toLowerCase())],
  ["upper", (text) => text.mapped(text.text.toUpperCase())],
  ["casefold", (text) => text.mapped(text.text.toLowerCase().replaceAll("ß", "ss").replaceAll("ς", "σ"))],
  ["capitalize", (text) => capitalize(text)],
  ["title", (text) => text.mapped(titled(text.text))],
  ["swapcase", (text) => text.mapped(Array.from(text.text, swapped).join(""))],
  ["strip", stripMethod("both")],
  ["lstrip", stripMethod("left")],
  ["rstrip", stripMethod("right")],
  ["split", splitMethod(false)],
  ["rsplit", splitMethod(true)],
  ["splitlines", splitLinesMethod],
  ["partition", partition(false)],
  ["rpartition", partition(true)],
  ["replace", replaceMethod],
  ["removeprefix", (text, given) => without(text, given, "start")],
  ["removesuffix", (text, given) => without(text, given, "end")],
  ["startswith", affix("startswith")],
  ["endswith", affix("endswith")],
  ["find", find("find")],
  ["rfind", find("rfind")],
  ["index", find("index")],
  ["rindex", find("rindex")],
  ["count", count],
  ["join", joinMethod],
  ["format", (text, given, run, access) => formatString(run, text, given, access)],
  ["format_map", formatMap],
  ["center", pad("center")],
  ["ljust", pad("ljust")],
  ["rjust", pad("rjust")],
  ["zfill", zeroFill],
  ["expandtabs", expandTabs],
  ["isalpha", every(/^[\p{L}]+$/u)],
  ["isalnum", every(/^[\p{L}\p{N}]+$/u)],
  ["isascii", (text) => /^[\0-\x7f]*$/.test(text.text)],
  ["isdecimal", every(/^\p{Nd}+$/u)],
  ["isdigit", every(/^[\p{Nd}²³¹⁰⁴-⁹₀-₉①-⑨]+$/u)],
  ["isnumeric", every(/^\p{N}+$/u)],
  ["isidentifier", every(/^[\p{ID_Start}_]\p{ID_Continue}*$/u)],
  ["isspace", (text) => text.text !== "" && Array.from(text.text).every(isSpace)],
  ["isprintable", (text) => Array.from(text.text).every(isPrintable)],
  ["islower", (text) => /\p{Ll}/u.test(text.text) && !/[\p{Lu}\p{Lt}]/u.test(text.text)],
  ["isupper", (text) => /\p{Lu}/u.test(text.text) && !/[\p{Ll}\p{Lt}]/u.test(text.text)],
  ["istitle", (text) => /[\p{Lu}\p{Ll}\p{Lt}]/u.test(text.text) && titled(text.text) === text.text],
]);

/** A method with its text; undefined when Python's strings have none of this name. */
export function stringMethod(
  text: Text,
  name: string,
  run: Run,
  access: Access,
): ((given: Arguments) => Value) | undefined {
  const method = methods.get(name);
  if (method === undefined) return undefined;
  return (given) => {
    run.room(text.text.length);
    return method(text, given, run, access);
  };
}

export function capitalize(text: Text): Text {
  const first = text.length === 0 ? "" : text.slice(0, 1).text;
  return text.mapped(titleOf(first) + text.text.slice(first.length).toLowerCase());
}

/** Letters that are two in one have a form of their own at the beginning of a word. */
const digraphs: ReadonlyMap<string, string> = new Map(
  ["ǄǅǆǅǇǈǉǈǊǋǌǋǱǲǳǲ"].flatMap((pairs) => pairs.match(/../g) ?? []).map((pair) => [pair[0]!, pair[1]!]),
);

function titleOf(character: string): string {
  const digraph = digraphs.get(character);
  if (digraph !== undefined) return digraph;
  const upper = character.toUpperCase();
  return upper.length > character.length ? upper[0] + upper.slice(1).toLowerCase() : upper;
}

function titled(text: string): string {
  let isInWord = false;
  return Array.from(text, (character) => {
    const result = isInWord ? character.toLowerCase() : titleOf(character);
    isInWord = /[\p{Lu}\p{Ll}\p{Lt}]/u.test(character);
    return result;
  }).join("");
}

function swapped(character: string): string {
  const lower = character.toLowerCase();
  return lower === character ? character.toUpperCase() : lower;
}

function every(pattern: RegExp): Method {
  return (text) => pattern.test(text.text);
}

function optionalText(value: Value | undefined, callee: string): Text | undefined {
  return value === undefined || value === null ? undefined : mustBeText(value, callee);
}

function stripMethod(side: Side): Method {
  const callee = { left: "lstrip", right: "rstrip", both: "strip" }[side];
  return (text, given, run) => strip(run, text, side, optionalText(take(callee, given, ["chars"])[0], callee));
}

function splitMethod(fromRight: boolean): Method {
  return (text, given, run) => {
    const [separator, limit] = take("split", given, ["sep", "maxsplit"]);
    return new List(
      split(run, text, {
        separator: optionalText(separator, "split"),
        limit: limit === undefined ? -1 : wholeNumber(limit, "maxsplit"),
        fromRight,
      }),
    );
  };
}

function splitLinesMethod(text: Text, given: Arguments, run: Run): Value {
  const [keepEnds] = take("splitlines", given, ["keepends"]);
  return new List(splitLines(run, text, keepEnds !== undefined && isTrue(keepEnds)));
}

function partition(fromRight: boolean): Method {
  return (text, given, run) => {
    const separator = mustBeText(take("partition", given, ["sep"], 1)[0], "partition");
    const parts = split(run, text, { separator, limit: 1, fromRight });
    if (parts.length === 2) {
      const at = parts[0]!.text.length;
      return new Tuple([parts[0]!, text.cut(at, at + separator.text.length), parts[1]!]);
    }
    return new Tuple(fromRight ? [emptyText, emptyText, text] : [text, emptyText, emptyText]);
  };
}

function replaceMethod(text: Text, given: Arguments, run: Run): Value {
  const [old, replacement, limit] = take("replace", given, ["old", "new", "count"], 2);
  const by = mustBeText(replacement, "replace");
  const most = limit === undefined ? -1 : wholeNumber(limit, "count");
  return replace(run, text, mustBeText(old, "replace"), text.isMarkup ? escapeHtml(by) : by, most);
}

function without(text: Text, given: Arguments, where: "start" | "end"): Value {
  const [value] = take("removeprefix", given, ["affix"], 1);
  const affix = mustBeText(value, "removeprefix").text;
  if (affix === "") return text;
  if (where === "start") return text.text.startsWith(affix) ? text.cut(affix.length) : text;
  return text.text.endsWith(affix) ? text.cut(0, text.text.length - affix.length) : text;
}

/** The units that `start` and `end` of a search name. */
function searched(text: Text, start: Value | undefined, end: Value | undefined): { from: number; to: number } {
  const { length } = text;
  const bound = (value: Value | undefined, otherwise: number) => {
    if (value === undefined || value === null) return otherwise;
    const index = wholeNumber(value, "an index");
    return index < 0 ? Math.max(0, length + index) : index;
  };
  const from = bound(start, 0);
  const to = Math.min(length, bound(end, length));
  return from > length ? { from: text.text.length + 1, to: text.at(to) } : { from: text.at(from), to: text.at(to) };
}

function affix(callee: "startswith" | "endswith"): Method {
  return (text, given) => {
    const [value, start, end] = take(callee, given, ["prefix", "start", "end"], 1);
    const { from, to } = searched(text, start, end);
    if (from > to) return false;
    const part = text.cut(from, to).text;
    const affixes = value instanceof Tuple ? value.items : [value];
    return affixes.some((each) => {
      const affix = mustBeText(each, callee).text;
      return callee === "startswith" ? part.startsWith(affix) : part.endsWith(affix);
    });
  };
}

function find(callee: "find" | "rfind" | "index" | "rindex"): Method {
  return (text, given) => {
    const [value, start, end] = take(callee, given, ["sub", "start", "end"], 1);
    const part = mustBeText(value, callee).text;
    const { from, to } = searched(text, start, end);
    const whole = from > to ? undefined : text.text.slice(from, to);
    const found = (callee.startsWith("r") ? whole?.lastIndexOf(part) : whole?.indexOf(part)) ?? -1;
    if (found === -1 && callee.endsWith("index")) throw new TemplateError("substring not found");
    return found === -1 ? -1 : text.indexOf(from + found);
  };
}

function count(text: Text, given: Arguments): Value {
  const [value, start, end] = take("count", given, ["sub", "start", "end"], 1);
  const part = mustBeText(value, "count").text;
  const { from, to } = searched(text, start, end);
  if (from > to) return 0;
  const whole = text.cut(from, to);
  if (part === "") return whole.length + 1;
  let times = 0;
  for (let at = whole.text.indexOf(part); at !== -1; at = whole.text.indexOf(part, at + part.length)) times += 1;
  return times;
}

function joinMethod(text: Text, given: Arguments, run: Run): Value {
  const [values] = take("join", given, ["iterable"], 1);
  const parts = itemsOf(run, values!).map((value, index) => {
    // required
    if (value instanceof Text) return text.isMarkup ? escapeHtml(value) : value;
    throw new TemplateError(`sequence item ${index}: expected str instance, ${typeName(value)} found`);
  });
  return join(run, text, parts);
}

function formatMap(text: Text, given: Arguments, run: Run, access: Access): Value {
  const [values] = take("format_map", given, ["mapping"], 1);
  if (!(values instanceof Dict)) throw new TemplateError("format_map needs a dict");
  const named = new Map(
    values.entries().flatMap(([key, value]) => (key instanceof Text ? [[key.text, value] as const] : [])),
  );
  return formatString(run, text, { positional: [], named }, access);
}

function pad(callee: "center" | "ljust" | "rjust"): Method {
  return (text, given, run) => {
    const [width, fill] = take(callee, given, ["width", "fillchar"], 1);
    return padded(run, text, { callee, width: wholeNumber(width!, "a width"), fill }); // required
  };
}

export function padded(
  run: Run,
  text: Text,
  options: { callee: "center" | "ljust" | "rjust"; width: number; fill?: Value | undefined },
): Text {
  const { callee, width, fill } = options;
  const filling = fill === undefined ? new Text(" ") : mustBeText(fill, callee);
  if (filling.length !== 1) throw new TemplateError("The fill character must be exactly one character long");
  const missing = width - text.length;
  if (missing <= 0) return text;
  run.room(missing * filling.text.length);
  // Python gives the odd one to the left when the width is odd.
  const left = callee === "ljust" ? 0 : callee === "rjust" ? missing : (missing >> 1) + (missing & width & 1);
  return new TextBuilder()
    .marked(filling.text.repeat(left), filling.isTyped)
    .add(text)
    .marked(filling.text.repeat(missing - left), filling.isTyped)
    .build(text.isMarkup);
}

function zeroFill(text: Text, given: Arguments, run: Run): Value {
  const [width] = take("zfill", given, ["width"], 1);
  const missing = wholeNumber(width!, "a width") - text.length; // required
  if (missing <= 0) return text;
  run.room(missing);
  const sign = /^[-+]/.test(text.text) ? 1 : 0;
  return new TextBuilder().add(text.cut(0, sign)).own("0".repeat(missing)).add(text.cut(sign)).build();
}

function expandTabs(text: Text, given: Arguments, run: Run): Value {
  const [value] = take("expandtabs", given, ["tabsize"]);
  const size = value === undefined ? 8 : wholeNumber(value, "a tab size");
  const builder = new TextBuilder();
  let column = 0;
  let from = 0;
  for (let at = 0; at < text.text.length; at += 1) {
    const character = text.text[at]!;
    if (character === "\t") {
      const spaces = size > 0 ? size - (column % size) : 0;
      run.fits(builder.length + spaces);
      builder.add(text.cut(from, at)).own(" ".repeat(spaces));
      run.spend(spaces);
      column += spaces;
      from = at + 1;
    } else column = character === "\n" || character === "\r" ? 0 : column + 1;
  }
  return builder.add(text.cut(from)).build();
}
