/** `"…%s…" % values`, as Python formats. */
import { escapeHtml } from "./html.ts";
import { formatMagnitude } from "./number-format.ts";
import { represent, toText } from "./print.ts";
import type { Run } from "./run.ts";
import { TemplateError } from "./template-error.ts";
import { Text, TextBuilder } from "./text.ts";
import { Dict, Float, numberOf, Tuple, typeName, Undefined, type Value, wholeNumber } from "./values.ts";

const conversion = /%(?:\(([^)]*)\))?([-+ #0]*)(\*|\d+)?(?:\.(\*|\d*))?[hlL]?([^])?/g;

export function formatPercent(run: Run, format: Text, given: Value): Text {
  const builder = new TextBuilder();
  const values = given instanceof Tuple ? given.items : [given];
  let used = 0;
  const next = (): Value => {
    const value = values[used++];
    if (value === undefined) throw new TemplateError("not enough arguments for format string");
    return value;
  };
  let plainFrom = 0;
  for (const found of format.text.matchAll(conversion)) {
    builder.add(format.cut(plainFrom, found.index));
    plainFrom = found.index + found[0].length;
    const [whole, key, flags = "", widthText, precisionText, type] = found;
    if (type === undefined) throw new TemplateError("incomplete format");
    if (whole === "%%") {
      builder.add(format.cut(plainFrom - 1, plainFrom));
      continue;
    }
    const width = widthText === "*" ? wholeNumber(next(), "a width") : Number(widthText ?? 0);
    const precision = precisionText === "*" ? wholeNumber(next(), "a precision") : precisionText;
    const value = key === undefined ? next() : named(given, format, found.index + 2, key);
    const form = { flags, width, precision: precision === undefined ? undefined : Number(precision), type };
    builder.add(convert(run, value, form, format.isMarkup));
    run.fits(builder.length);
  }
  const unused = given instanceof Tuple ? used < values.length : used === 0 && !(given instanceof Dict);
  if (unused) throw new TemplateError("not all arguments converted during string formatting");
  return builder.add(format.cut(plainFrom)).build(format.isMarkup);
}

function named(given: Value, format: Text, at: number, key: string): Value {
  if (!(given instanceof Dict)) throw new TemplateError("format requires a mapping");
  const value = given.get(format.cut(at, at + key.length));
  if (value === undefined) throw new TemplateError(`there is no "${key}" to format`);
  return value;
}

interface Form {
  readonly flags: string;
  readonly width: number;
  readonly precision: number | undefined;
  readonly type: string;
}

function convert(run: Run, value: Value, form: Form, isMarkup: boolean): Text {
  const { type, precision } = form;
  if (type === "s" || type === "r" || type === "a") {
    const whole = type === "s" ? toText(run, value) : represent(run, value);
    const text = isMarkup ? escapeHtml(whole) : whole;
    return padded(run, precision === undefined ? text : text.slice(0, Math.min(precision, text.length)), form);
  }
  if (type === "c") return padded(run, characterOf(value), form);
  if (!/^[diuoxXeEfFgG]$/.test(type)) throw new TemplateError(`unsupported format character '${type}'`);
  return padded(run, new Text(numberText(value, form)), form);
}

function characterOf(value: Value): Text {
  if (value instanceof Text && value.length === 1) return value;
  const code = value instanceof Text ? -1 : wholeNumber(value, "%c");
  if (!(code >= 0 && code <= 0x10_ff_ff)) throw new TemplateError("%c requires int or char");
  return Text.typed(String.fromCodePoint(code)); // whose the number was, nobody knows
}

function numberText(value: Value, { flags, width, precision, type }: Form): string {
  if (value instanceof Undefined) value.fail();
  const number = numberOf(value);
  if (number === undefined)
    throw new TemplateError(`%${type} format: a real number is required, not ${typeName(value)}`);
  const isWhole = "diuoxX".includes(type);
  if (isWhole && value instanceof Float && !"diu".includes(type)) {
    throw new TemplateError(`%${type} format: an integer is required, not float`);
  }
  const amount = isWhole && value instanceof Float ? Math.trunc(value.value) : number;
  const isNegative = amount < 0 || Object.is(amount, -0);
  const form = { type: "iu".includes(type) ? "d" : type, precision, isAlternate: flags.includes("#") };
  let digits = formatMagnitude(isNegative ? -amount : amount, form);
  if (isWhole && precision !== undefined) digits = digits.padStart(Math.min(precision, 400), "0");
  const sign = isNegative ? "-" : flags.includes("+") ? "+" : flags.includes(" ") ? " " : "";
  const isFilled = flags.includes("0") && !flags.includes("-");
  return sign + (isFilled ? digits.padStart(Math.min(width, 10_000) - sign.length, "0") : digits);
}

function padded(run: Run, text: Text, { flags, width }: Form): Text {
  const missing = Math.abs(width) - text.length;
  if (missing <= 0) return text;
  run.room(missing);
  const builder = new TextBuilder();
  const spaces = " ".repeat(missing);
  return flags.includes("-") || width < 0
    ? builder.add(text).own(spaces).build()
    : builder.own(spaces).add(text).build();
}
