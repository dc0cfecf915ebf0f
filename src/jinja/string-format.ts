/** `"…{}…".format(values)`, as Python formats. */
import { escapeHtml } from "./html.ts";
import { formatMagnitude, grouped } from "./number-format.ts";
import { floatText, represent, toText } from "./print.ts";
import type { Run } from "./run.ts";
import { TemplateError } from "./template-error.ts";
import { emptyText, Text, TextBuilder } from "./text.ts";
import { type Arguments, Float, numberOf, typeName, Undefined, type Value } from "./values.ts";

/** Looks up `.name` and `[key]`. */
export interface Access {
  attribute(of: Value, name: string): Value;
  item(of: Value, key: Value): Value;
}

export function formatString(run: Run, format: Text, given: Arguments, access: Access): Text {
  return new Formatter(run, given, access, format.isMarkup).format(format, 2);
}

class Formatter {
  readonly #run: Run;
  readonly #given: Arguments;
  readonly #access: Access;
  readonly #isMarkup: boolean;
  #next: number | "by-number" = 0;

  constructor(run: Run, given: Arguments, access: Access, isMarkup: boolean) {
    this.#run = run;
    this.#given = given;
    this.#access = access;
    this.#isMarkup = isMarkup;
  }

  format(format: Text, depth: number): Text {
    if (depth === 0) throw new TemplateError("a format string is nested too deeply");
    const builder = new TextBuilder();
    const { text } = format;
    let at = 0;
    while (at < text.length) {
      const brace = text.slice(at).search(/[{}]/);
      const to = brace === -1 ? text.length : at + brace;
      builder.add(format.cut(at, to));
      if (to === text.length) break;
      if (text[to + 1] === text[to]) {
        builder.add(format.cut(to, to + 1));
        at = to + 2;
        continue;
      }
      if (text[to] === "}") throw new TemplateError("Single '}' encountered in format string");
      const end = closingBrace(text, to);
      builder.add(this.#field(format.cut(to + 1, end), depth));
      this.#run.fits(builder.length);
      at = end + 1;
    }
    return builder.build(this.#isMarkup);
  }

  #field(field: Text, depth: number): Text {
    const [, name = "", conversion, colon] = /^([^!:[]*(?:\[[^\]]*\][^!:[]*)*)(?:!(.))?(:)?/s.exec(field.text) ?? [];
    const specAt = name.length + (conversion === undefined ? 0 : 2) + (colon === undefined ? 0 : 1);
    let value = this.#value(name);
    const spec = colon === undefined ? emptyText : this.format(field.cut(specAt), depth - 1);
    if (conversion === "r" || conversion === "a") value = represent(this.#run, value);
    else if (conversion === "s") value = toText(this.#run, value);
    else if (conversion !== undefined) throw new TemplateError(`unknown conversion "${conversion}" in a format string`);
    const formatted = formatValue(this.#run, value, spec.text);
    // What fills the width may be typed, and whose number became a character, nobody knows.
    const text = spec.isTyped || spec.text.endsWith("c") ? Text.typed(formatted.text) : formatted;
    return this.#isMarkup ? escapeHtml(text) : text;
  }

  #value(path: string): Value {
    const [, first = "", rest = ""] = /^([^.[]*)(.*)$/s.exec(path) ?? [];
    let value = this.#first(first);
    for (const [, attribute, key] of rest.matchAll(/\.([^.[]+)|\[([^\]]+)\]/g)) {
      value =
        attribute === undefined
          ? this.#access.item(value, /^\d+$/.test(key ?? "") ? Number(key) : new Text(key ?? ""))
          : this.#access.attribute(value, attribute);
      if (value instanceof Undefined) value.fail();
    }
    return value;
  }

  #first(name: string): Value {
    if (name === "" || /^\d+$/.test(name)) {
      if ((name === "") !== (this.#next !== "by-number") && this.#next !== 0) {
        throw new TemplateError("cannot switch between automatic and manual field numbering");
      }
      const index = name === "" ? Number(this.#next) : Number(name);
      this.#next = name === "" ? index + 1 : "by-number";
      const value = this.#given.positional[index];
      if (value === undefined) throw new TemplateError(`Replacement index ${index} out of range for positional args`);
      return value;
    }
    const value = this.#given.named.get(name);
    if (value === undefined) throw new TemplateError(`there is no "${name}" to format`);
    return value;
  }
}

function closingBrace(text: string, open: number): number {
  let depth = 0;
  for (let at = open; at < text.length; at += 1) {
    if (text[at] === "{") depth += 1;
    else if (text[at] === "}") {
      depth -= 1;
      if (depth === 0) return at;
    }
  }
  throw new TemplateError("expected '}' before end of string");
}

const specification = /^(?:(.)?([<>=^]))?([-+ ])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([bcdeEfFgGnosxX%])?$/su;

/** One value by a format specification such as `>8.2f`. */
export function formatValue(run: Run, value: Value, spec: string): Text {
  if (spec === "") return toText(run, value);
  const found = specification.exec(spec);
  if (value instanceof Undefined) value.fail();
  if (found === null) throw new TemplateError(`Invalid format specifier '${spec}'`);
  const [, fill, align, sign, alternate, zero, widthText, separator, precisionText, type] = found;
  const width = Number(widthText ?? 0);
  const precision = precisionText === undefined ? undefined : Number(precisionText);
  const number = numberOf(value);
  if (value instanceof Text || (number === undefined && spec !== "")) {
    if (!(value instanceof Text))
      throw new TemplateError(`unsupported format string passed to ${typeName(value)}.__format__`);
    if (type !== undefined && type !== "s")
      throw new TemplateError(`Unknown format code '${type}' for object of type 'str'`);
    if (align === "=" || sign !== undefined)
      throw new TemplateError("a sign or '=' is not allowed in a string's format");
    const text = precision === undefined ? value : value.slice(0, Math.min(precision, value.length));
    return aligned(run, text, {
      fill: fill ?? (zero === undefined ? " " : "0"),
      align: align ?? "<",
      width,
      signLength: 0,
    });
  }
  const amount = number ?? 0;
  const isNegative = amount < 0 || Object.is(amount, -0);
  const isFloat = value instanceof Float;
  const magnitude = isNegative ? -amount : amount;
  let digits: string;
  if (type === undefined && isFloat && precision === undefined) digits = floatText(Number(magnitude));
  else if (type === "c") digits = String.fromCodePoint(Number(magnitude));
  else {
    const form = type === undefined || type === "n" ? (isFloat ? "g" : "d") : type;
    if (isFloat && "bdoxX".includes(form))
      throw new TemplateError(`Unknown format code '${form}' for object of type 'float'`);
    digits = formatMagnitude(magnitude, { type: form, precision, isAlternate: alternate !== undefined });
    if (type === undefined && isFloat && /^\d+$/.test(digits)) digits += ".0";
  }
  if (separator !== undefined) digits = grouped(digits, separator);
  const prefix = isNegative ? "-" : sign === "+" || sign === " " ? sign : "";
  const usesZeros = zero !== undefined && align === undefined;
  return aligned(run, new Text(prefix + digits), {
    fill: fill ?? (zero === undefined ? " " : "0"),
    align: usesZeros ? "=" : (align ?? ">"),
    width,
    signLength: prefix.length,
  });
}

function aligned(run: Run, text: Text, form: { fill: string; align: string; width: number; signLength: number }): Text {
  const missing = form.width - text.length;
  if (missing <= 0) return text;
  run.room(missing);
  const left = form.align === "<" ? 0 : form.align === "^" ? Math.floor(missing / 2) : missing;
  const builder = new TextBuilder();
  if (form.align === "=") {
    return builder
      .add(text.cut(0, form.signLength))
      .own(form.fill.repeat(missing))
      .add(text.cut(form.signLength))
      .build();
  }
  return builder
    .own(form.fill.repeat(left))
    .add(text)
    .own(form.fill.repeat(missing - left))
    .build();
}
