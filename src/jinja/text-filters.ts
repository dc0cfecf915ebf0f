/** Jinja's filters that make texts. */
import { mustBeText, take } from "./arguments.ts";
import { isSpace, whiteSpace } from "./characters.ts";
import { attributeGetter, type Filter } from "./filter.ts";
import { escapeHtml } from "./html.ts";
import { toJson } from "./json.ts";
import { itemsOf } from "./operators.ts";
import { formatPercent } from "./percent-format.ts";
import { toText } from "./print.ts";
import { capitalize, padded } from "./string-methods.ts";
import { join, replace, split, splitLines, strip } from "./string-search.ts";
import { TemplateError } from "./template-error.ts";
import { concat, emptyText, Text, TextBuilder } from "./text.ts";
import { Dict, isTrue, List, namedEntries, Tuple, Undefined, type Value, wholeNumber } from "./values.ts";
import { wordWrap } from "./word-wrap.ts";

export const textFilters: Readonly<Record<string, Filter>> = {
  string: (value, _given, { run }) => toText(run, value),
  lower: onText((text) => text.mapped(text.text.toLowerCase())),
  upper: onText((text) => text.mapped(text.text.toUpperCase())),
  capitalize: onText(capitalize),
  title: onText((text) => text.mapped(titled(text.text))),
  trim(value, given, { run }) {
    const [characters] = take("trim", given, ["chars"]);
    const set = characters === undefined || characters === null ? undefined : mustBeText(characters, "trim");
    return strip(run, toText(run, value), "both", set);
  },
  center(value, given, { run }) {
    const [width = 80] = take("center", given, ["width"]);
    return padded(run, toText(run, value), { callee: "center", width: wholeNumber(width, "a width") });
  },
  replace(value, given, { run }) {
    const [old, replacement, count] = take("replace", given, ["old", "new", "count"], 2);
    const limit = count === undefined || count === null ? -1 : wholeNumber(count, "count");
    return replace(run, toText(run, value), toText(run, old!), toText(run, replacement!), limit); // both required
  },
  format(value, given, { run }) {
    const { positional, named } = given;
    if (positional.length > 0 && named.size > 0) {
      throw new TemplateError("can't handle positional and keyword arguments at the same time");
    }
    const values = named.size > 0 ? Dict.of(namedEntries(given)) : new Tuple(positional);
    return formatPercent(run, toText(run, value), values);
  },
  indent(value, given, { run }) {
    const [width = 4, first = false, blank = false] = take("indent", given, ["width", "first", "blank"]);
    const by = width instanceof Text ? width : spaces(wholeNumber(width, "a width"), (units) => run.room(units));
    const ended = concat(mustBeText(value, "indent"), new Text("\n"));
    const lines = splitLines(run, ended, false);
    const indented = lines.map((line, index) => {
      const isIndented = index === 0 ? isTrue(first) : isTrue(blank) || line.text !== "";
      return isIndented ? concat(by, line) : line;
    });
    return join(run, new Text("\n"), indented);
  },
  truncate(value, given, { run }) {
    const [length = 255, killWords = false, end = new Text("..."), leeway] = take("truncate", given, [
      "length",
      "killwords",
      "end",
      "leeway",
    ]);
    const text = toText(run, value);
    const ending = mustBeText(end, "truncate");
    const kept = wholeNumber(length, "a length") - ending.length;
    const room = leeway === undefined || leeway === null ? 5 : wholeNumber(leeway, "a leeway");
    if (kept < 0 || room < 0) throw new TemplateError("truncate needs a length of at least its end's");
    if (text.length <= kept + ending.length + room) return text;
    const start = text.slice(0, kept);
    if (isTrue(killWords)) return concat(start, ending);
    return concat(split(run, start, { separator: new Text(" "), limit: 1, fromRight: true })[0]!, ending);
  },
  wordwrap(value, given, { run }) {
    const names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    const [width = 79, breakLong = true, wrapString, breakOnHyphens = true] = take("wordwrap", given, names);
    const text = toText(run, value);
    run.spend(text.text.length);
    const options = {
      width: wholeNumber(width, "a width"),
      breakLong: isTrue(breakLong),
      onHyphens: isTrue(breakOnHyphens),
    };
    const by = wrapString === undefined || wrapString === null ? new Text("\n") : mustBeText(wrapString, "wordwrap");
    return join(
      run,
      by,
      splitLines(run, text, false).map((line) => join(run, by, wordWrap(line, options))),
    );
  },
  wordcount(value, _given, { run }) {
    const { text } = toText(run, value);
    run.spend(text.length / 2); // makes a text of each word
    return text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0;
  },
  striptags: onText(stripTags),
  urlencode(value, _given, { run }) {
    if (value instanceof Text || !(value instanceof Dict || value instanceof List || value instanceof Tuple)) {
      const text = toText(run, value);
      return text.mapped(percentEncoded(text.text, /[\w.\-~/]/));
    }
    const pairs = value instanceof Dict ? value.entries() : value.items.map((item) => pairOf(item));
    const parts = pairs.map((pair) =>
      pair.map((part) => percentEncoded(toText(run, part).text, /[\w.\-~]/).replaceAll("%20", "+")),
    );
    return Text.typed(parts.map((part) => part.join("=")).join("&"));
  },
  escape: onText(escapeHtml),
  e: onText(escapeHtml),
  forceescape: onText((text) => escapeHtml(text.asMarkup(false))),
  safe: onText((text) => text.asMarkup()),
  xmlattr(value, given, { run }) {
    const [autospace = true] = take("xmlattr", given, ["autospace"]);
    if (!(value instanceof Dict)) throw new TemplateError("xmlattr needs a dict");
    const builder = new TextBuilder();
    for (const [key, item] of value.entries()) {
      if (item === null || item instanceof Undefined) continue;
      const name = toText(run, key);
      if (/[\s/>=]/.test(name.text)) throw new TemplateError(`Invalid character in attribute name: '${name.text}'`);
      if (builder.length > 0) builder.own(" ");
      builder
        .add(escapeHtml(name))
        .own('="')
        .add(escapeHtml(toText(run, item)))
        .own('"');
    }
    const attributes = builder.build();
    return isTrue(autospace) && attributes.text !== "" ? concat(new Text(" "), attributes) : attributes;
  },
  tojson(value, given, { run }) {
    // As transformers has it: nothing is escaped for HTML.
    const [ascii = false, indent = null, separators = null, sortKeys = false] = take("tojson", given, [
      "ensure_ascii",
      "indent",
      "separators",
      "sort_keys",
    ]);
    return toJson(run, value, { ascii: isTrue(ascii), indent, separators, sortKeys: isTrue(sortKeys) });
  },
  join(value, given, context) {
    const { run } = context;
    const [separator, attribute] = take("join", given, ["d", "attribute"]);
    const get = attributeGetter(context, attribute);
    const parts = itemsOf(run, value).map((item) => toText(run, get(item)));
    return join(run, separator === undefined ? emptyText : toText(run, separator), parts);
  },
};

/** A filter of the value's text. */
function onText(change: (text: Text) => Text): Filter {
  return (value, given, { run }) => {
    take("the filter", given, []);
    const text = toText(run, value);
    run.room(text.text.length);
    return change(text);
  };
}

function spaces(width: number, room: (units: number) => void): Text {
  room(Math.max(0, width));
  return new Text(" ".repeat(Math.max(0, width)));
}

const wordBeginnings = new RegExp(`((?:[-({[<]|${whiteSpace})+)`);

function titled(text: string): string {
  return text
    .split(wordBeginnings)
    .map((part) => capitalize(new Text(part)).text)
    .join("");
}

function pairOf(item: Value): readonly [Value, Value] {
  const items = item instanceof Tuple || item instanceof List ? item.items : [];
  const [key, value] = items;
  if (key === undefined || value === undefined) throw new TemplateError("urlencode needs pairs");
  return [key, value];
}

function percentEncoded(text: string, kept: RegExp): string {
  return Array.from(Buffer.from(text, "utf8"), (byte) => {
    const character = String.fromCharCode(byte);
    return byte < 0x80 && kept.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }).join("");
}

const named: ReadonlyMap<string, string> = new Map([
  ["amp", "&"],
  ["lt", "<"],
  ["gt", ">"],
  ["quot", `"`],
  ["apos", "'"],
  ["nbsp", "\xa0"],
]);

function stripTags(text: Text): Text {
  const bare = withoutAll(withoutAll(text.text, "<!--", "-->"), "<", ">");
  const words = splitWords(bare).join(" ");
  const plain = words.replace(/&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(\w+));/g, (all, decimal, hex, name) => {
    if (name !== undefined) return named.get(String(name)) ?? all;
    const code = decimal === undefined ? Number.parseInt(String(hex), 16) : Number(decimal);
    return code <= 0x10_ff_ff ? String.fromCodePoint(code) : "\ufffd";
  });
  return text.isTyped ? Text.typed(plain) : new Text(plain);
}

function withoutAll(text: string, open: string, close: string): string {
  let rest = "";
  let at = 0;
  for (let from = text.indexOf(open); from !== -1; from = text.indexOf(open, at)) {
    const to = text.indexOf(close, from + open.length);
    if (to === -1) break;
    rest += text.slice(at, from);
    at = to + close.length;
  }
  return rest + text.slice(at);
}

function splitWords(text: string): string[] {
  return Array.from(text, (character) => (isSpace(character) ? " " : character))
    .join("")
    .split(" ")
    .filter(Boolean);
}
