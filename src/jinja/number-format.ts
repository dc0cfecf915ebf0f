/** Numbers in the forms that Python's format specifications name. */
import { TemplateError } from "./template-error.ts";

export interface NumberForm {
  /** One of d, b, o, x, X, e, E, f, F, g, G, % and "" */
  readonly type: string;
  readonly precision: number | undefined;
  readonly isAlternate: boolean;
}

/** More digits than any double has. */
const mostDigits = 400;

/** The digits of a number without its sign. */
export function formatMagnitude(value: number | bigint, form: NumberForm): string {
  const { type } = form;
  if (type === "d") return String(value);
  if (type === "b" || type === "o" || type === "x" || type === "X")
    return inBase(BigInt(value), type, form.isAlternate);
  return formatFloat(Number(value), form);
}

function inBase(value: bigint, type: "b" | "o" | "x" | "X", isAlternate: boolean): string {
  const digits = value.toString(type === "b" ? 2 : type === "o" ? 8 : 16);
  const text = isAlternate ? `0${type.toLowerCase()}${digits}` : digits;
  return type === "X" ? text.toUpperCase() : text;
}

function formatFloat(value: number, { type, precision = 6, isAlternate }: NumberForm): string {
  if (precision > mostDigits) throw new TemplateError(`more than ${mostDigits} digits are asked for`);
  const isUpper = type === "E" || type === "F" || type === "G";
  if (!Number.isFinite(value)) {
    const name = `${Number.isNaN(value) ? "nan" : "inf"}${type === "%" ? "%" : ""}`;
    return isUpper ? name.toUpperCase() : name;
  }
  const text =
    type === "f" || type === "F"
      ? fixed(value, precision)
      : type === "%"
        ? `${fixed(value * 100, precision)}%`
        : type === "e" || type === "E"
          ? scientific(value, precision)
          : general(value, Math.max(1, precision), isAlternate);
  return isUpper ? text.toUpperCase() : text;
}

/** The number of `digits` after the point that is nearest to the double's exact value; of two, the even one. */
export function fixed(value: number, digits: number): string {
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  const whole = scaled(Math.abs(value), digits).toString();
  if (digits <= 0) return sign + whole;
  const padded = whole.padStart(digits + 1, "0");
  return `${sign}${padded.slice(0, -digits)}.${padded.slice(-digits)}`;
}

/** value × 10^places, rounded half to even. */
export function scaled(value: number, places: number): bigint {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  const bits = view.getBigUint64(0);
  const stored = Number((bits >> 52n) & 0x7ffn);
  const fraction = bits & 0xf_ffff_ffff_ffffn;
  const mantissa = stored === 0 ? fraction : fraction | (1n << 52n);
  const exponent = Math.max(stored, 1) - 1075;
  const above = mantissa * 10n ** BigInt(Math.max(0, places)) * 2n ** BigInt(Math.max(0, exponent));
  const below = 10n ** BigInt(Math.max(0, -places)) * 2n ** BigInt(Math.max(0, -exponent));
  const quotient = above / below;
  const twice = (above % below) * 2n;
  return twice > below || (twice === below && quotient % 2n === 1n) ? quotient + 1n : quotient;
}

function decimalExponent(value: number): number {
  return value === 0 ? 0 : Number(value.toExponential().split("e")[1]);
}

function scientific(value: number, precision: number): string {
  let exponent = decimalExponent(value);
  let digits = scaled(value, precision - exponent).toString();
  if (digits.length > precision + 1) {
    exponent += 1;
    digits = scaled(value, precision - exponent).toString();
  }
  digits = digits.padEnd(precision + 1, "0");
  const point = precision > 0 ? `.${digits.slice(1)}` : "";
  return `${digits[0]}${point}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

function general(value: number, precision: number, isAlternate: boolean): string {
  const text = scientific(value, precision - 1);
  const exponent = Number(text.split("e")[1]);
  const isPlain = exponent >= -4 && exponent < precision;
  const [digits = "", power] = isPlain ? [fixed(value, precision - 1 - exponent)] : text.split("e");
  const short = isAlternate || !digits.includes(".") ? digits : digits.replace(/\.?0+$/, "");
  return power === undefined ? short : `${short}e${power}`;
}

/** A separator between groups of digits of the whole part. */
export function grouped(digits: string, separator: string): string {
  const [, whole = "", rest = ""] = /^([\da-f]*)(.*)$/is.exec(digits) ?? [];
  return whole.replace(/\B(?=(?:\d{3})+$)/g, separator) + rest;
}
