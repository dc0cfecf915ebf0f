/** Jinja's filters on single values: numbers, defaults, attributes. */
import { take } from "./arguments.ts";
import type { Filter } from "./filter.ts";
import { fixed } from "./number-format.ts";
import { negate, wholeOf } from "./operators.ts";
import { toText } from "./print.ts";
import { TemplateError } from "./template-error.ts";
import { Text } from "./text.ts";
import { Dict, Float, isTrue, numberOf, orElse, typeName, Undefined, type Value, wholeNumber } from "./values.ts";

const defaultTo: Filter = (value, given) => {
  const [otherwise = new Text(""), boolean = false] = take("default", given, ["default_value", "boolean"]);
  return value instanceof Undefined || (isTrue(boolean) && !isTrue(value)) ? otherwise : value;
};

export const valueFilters: Readonly<Record<string, Filter>> = {
  default: defaultTo,
  d: defaultTo,
  attr(value, given, { run, access }) {
    const [name] = take("attr", given, ["name"], 1);
    const key = toText(run, name!).text; // required
    if (value instanceof Dict && value.named(key) !== undefined) {
      // Items are no attributes; a method of the same name is one.
      const own = access.attribute(Dict.of([]), key);
      return own instanceof Undefined ? own : access.attribute(value, key);
    }
    return access.attribute(value, key);
  },
  abs(value) {
    const number = mustBeNumber(value);
    return number < 0 || Object.is(number, -0) ? negate(value) : typeof value === "boolean" ? Number(value) : value;
  },
  int(value, given, { run }) {
    const [otherwise = 0, base = 10] = take("int", given, ["default", "base"]);
    return orElse(
      toInt(value instanceof Text ? value.text : value, wholeNumber(base, "a base"), (units) => run.room(units)),
      () => otherwise,
    );
  },
  float(value, given, { run }) {
    const [otherwise = new Float(0)] = take("float", given, ["default"]);
    if (value instanceof Undefined) return otherwise;
    if (value instanceof Text) run.room(value.text.length);
    const number = value instanceof Text ? parseFloatText(value.text) : numberOf(value);
    return number === undefined ? otherwise : new Float(Number(number));
  },
  round(value, given) {
    const [precision = 0, method = new Text("common")] = take("round", given, ["precision", "method"]);
    const digits = wholeNumber(precision, "precision");
    const how = method instanceof Text ? method.text : "";
    const number = mustBeNumber(value);
    if (how === "common")
      return value instanceof Float ? new Float(rounded(value.value, digits)) : roundedWhole(number, digits);
    if (how !== "ceil" && how !== "floor") throw new TemplateError("method must be common, ceil or floor");
    const scaled = Number(number) * 10 ** digits;
    return new Float((how === "ceil" ? Math.ceil(scaled) : Math.floor(scaled)) / 10 ** digits);
  },
  filesizeformat(value, given) {
    const [binary = false] = take("filesizeformat", given, ["binary"]);
    const size = value instanceof Text ? (parseFloatText(value.text) ?? Number.NaN) : Number(mustBeNumber(value));
    const base = isTrue(binary) ? 1024 : 1000;
    if (size === 1) return new Text("1 Byte");
    if (size < base) return new Text(`${Math.trunc(size)} Bytes`);
    const prefixes = isTrue(binary)
      ? ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
      : ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    const index = prefixes.findIndex((_, at) => size < base ** (at + 2));
    const power = index === -1 ? prefixes.length - 1 : index;
    return new Text(`${fixed((base * size) / base ** (power + 2), 1)} ${prefixes[power]}`);
  },
};

function mustBeNumber(value: Value): number | bigint {
  if (value instanceof Undefined) value.fail();
  const number = numberOf(value);
  if (number === undefined) throw new TemplateError(`a number is needed, not ${typeName(value)}`);
  return number;
}

function rounded(value: number, digits: number): number {
  if (!Number.isFinite(value) || digits > 300) return value;
  return digits >= 0 ? Number(fixed(value, digits)) : Number(`${fixed(value, digits)}e${-digits}`);
}

function roundedWhole(number: number | bigint, digits: number): Value {
  if (digits >= 0) return typeof number === "bigint" ? wholeOf(number) : number;
  return Math.round(Number(fixed(Number(number), digits))) * 10 ** -digits;
}

function toInt(value: string | Value, base: number, room: (units: number) => void): Value | undefined {
  if (typeof value === "string") {
    room(value.length * 16);
    const whole = parseWhole(value.trim(), base);
    if (whole !== undefined) return whole;
    const real = parseFloatText(value);
    return real === undefined || !Number.isFinite(real) ? undefined : wholeOf(BigInt(Math.trunc(real)));
  }
  if (value instanceof Float)
    return Number.isFinite(value.value) ? wholeOf(BigInt(Math.trunc(value.value))) : undefined;
  const number = value instanceof Undefined ? undefined : numberOf(value);
  return number === undefined ? undefined : wholeOf(BigInt(number));
}

/** Longer ones are no counts of anything, and turning them into numbers takes long. */
const mostDigits = 1000;

function parseWhole(text: string, base: number): Value | undefined {
  const [, sign, prefix, digits] = /^([-+]?)(0[xX]|0[oO]|0[bB])?((?:_?[\da-zA-Z])+)$/.exec(text) ?? [];
  if (digits === undefined || digits.length > mostDigits) return undefined;
  const named = prefix === undefined ? undefined : { x: 16, o: 8, b: 2 }[prefix[1]!.toLowerCase()];
  if (named !== undefined && base !== named && base !== 0) return undefined;
  const radix = named ?? (base === 0 ? 10 : base);
  let value = 0n;
  for (const digit of digits.replaceAll("_", "")) {
    const amount = Number.parseInt(digit, 36);
    if (amount >= radix) return undefined;
    value = value * BigInt(radix) + BigInt(amount);
  }
  return wholeOf(sign === "-" ? -value : value);
}

function parseFloatText(text: string): number | undefined {
  const trimmed = text.trim().replace(/(?<=\d)_(?=\d)/g, "");
  if (/^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?$/i.test(trimmed)) return Number(trimmed);
  const [, sign, name] = /^([-+]?)(inf|infinity|nan)$/i.exec(trimmed) ?? [];
  if (name === undefined) return undefined;
  return name.toLowerCase() === "nan" ? Number.NaN : sign === "-" ? -Infinity : Infinity;
}
