/** How Python writes values: `str` and `repr`. */
import { isPrintable } from "./characters.ts";
import type { Run } from "./run.ts";
import { emptyText, Text, TextBuilder } from "./text.ts";
import {
  Callable,
  Dict,
  Float,
  Generator,
  List,
  Properties,
  Range,
  Tuple,
  Undefined,
  type Value,
  View,
} from "./values.ts";

const constants = { none: new Text("None"), true: new Text("True"), false: new Text("False") };

/** `str(value)`. What was typed stays so; numbers count as the template's own, since no control token is one. */
export function toText(run: Run, value: Value): Text {
  if (value instanceof Text) return value;
  if (value instanceof Undefined) return emptyText;
  if (value === null) return constants.none;
  if (typeof value === "boolean") return value ? constants.true : constants.false;
  if (typeof value === "number" || typeof value === "bigint") return new Text(String(value));
  if (value instanceof Float) return new Text(floatText(value.value));
  return represent(run, value);
}

/** `repr(value)` */
export function represent(run: Run, value: Value): Text {
  const builder = new TextBuilder();
  write(run, builder, value);
  run.room(builder.length);
  return builder.build();
}

function write(run: Run, into: TextBuilder, value: Value): void {
  run.spend(1);
  if (value instanceof Text) writeQuoted(run, into, value);
  else if (value instanceof Undefined) into.own("Undefined");
  else if (value instanceof List) writeAll(run, into, ["[", "]"], value.items);
  else if (value instanceof Tuple) writeAll(run, into, ["(", value.items.length === 1 ? ",)" : ")"], value.items);
  else if (value instanceof View) {
    into.own(`${value.name}(`);
    writeAll(run, into, ["[", "]"], value.items);
    into.own(")");
  } else if (value instanceof Dict) {
    into.own("{");
    run.deeper(() => {
      for (const [index, [key, item]] of value.entries().entries()) {
        if (index > 0) into.own(", ");
        write(run, into, key);
        into.own(": ");
        write(run, into, item);
      }
    });
    into.own("}");
  } else if (value instanceof Range) {
    into.own(`range(${value.from}, ${value.to}${value.step === 1 ? "" : `, ${value.step}`})`);
  } else if (value instanceof Generator) into.own("<generator object>");
  else if (value instanceof Callable) into.own(`<function ${value.name}>`);
  else if (value instanceof Properties) into.own(`<${value.kind}>`);
  else into.add(toText(run, value));
}

function writeAll(run: Run, into: TextBuilder, [open, close]: [string, string], items: readonly Value[]): void {
  into.own(open);
  run.deeper(() => {
    for (const [index, item] of items.entries()) {
      if (index > 0) into.own(", ");
      write(run, into, item);
    }
  });
  into.own(close);
}

function writeQuoted(run: Run, into: TextBuilder, value: Text): void {
  run.room(value.text.length);
  const quote = value.text.includes("'") && !value.text.includes('"') ? '"' : "'";
  if (value.isMarkup) into.own("Markup(");
  into.own(quote);
  if (/^[ -&(-[\]-~]*$/.test(value.text)) into.add(value);
  else writeEscaped(into, value, quote);
  into.own(quote);
  if (value.isMarkup) into.own(")");
}

function writeEscaped(into: TextBuilder, value: Text, quote: string): void {
  let plainFrom = 0;
  let at = 0;
  for (const character of value.text) {
    const escaped = escape(character, quote);
    if (escaped !== undefined) {
      into.add(value.cut(plainFrom, at));
      into.marked(escaped, value.cut(at, at + character.length).isTyped);
      plainFrom = at + character.length;
    }
    at += character.length;
  }
  into.add(value.cut(plainFrom));
}

const shortEscapes: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escape(character: string, quote: string): string | undefined {
  if (character === quote) return `\\${quote}`;
  const short = shortEscapes[character];
  if (short !== undefined) return short;
  if (isPrintable(character)) return undefined;
  const code = character.codePointAt(0)!; // a character has one
  const hex = code.toString(16);
  if (code <= 0xff) return `\\x${hex.padStart(2, "0")}`;
  return code <= 0xff_ff ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}

/** The shortest digits that give the same number, in Python's form. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Object.is(value, -0)) return "-0.0";
  const [digits = "", exponentText = "0"] = value.toExponential().split("e");
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) {
    const sign = exponent < 0 ? "-" : "+";
    return `${digits}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const text = String(value);
  return text.includes(".") ? text : `${text}.0`;
}
