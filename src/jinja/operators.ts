/** Python's operators on the template's values. */
import { escapeHtml } from "./html.ts";
import { formatPercent } from "./percent-format.ts";
import type { Run } from "./run.ts";
import type { BinaryOperator, Comparison } from "./syntax.ts";
import { TemplateError } from "./template-error.ts";
import { concat, Text, TextBuilder } from "./text.ts";
import {
  Dict,
  Float,
  Generator,
  keyOf,
  List,
  numberOf,
  orElse,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
} from "./values.ts";

export function binary(run: Run, operator: BinaryOperator, left: Value, right: Value): Value {
  if (left instanceof Undefined) left.fail();
  if (operator === "%" && left instanceof Text) return formatPercent(run, left, right);
  if (right instanceof Undefined) right.fail();
  const a = numberOf(left);
  const b = numberOf(right);
  if (a !== undefined && b !== undefined) {
    return left instanceof Float || right instanceof Float
      ? new Float(floatResult(operator, Number(a), Number(b)))
      : wholeResult(operator, a, b);
  }
  const repeat = () => orElse(multiply(run, left, right), () => orElse(multiply(run, right, left), fail));
  const fail = () => unsupported(operator, left, right);
  if (operator === "*") return repeat();
  return operator === "+" ? orElse(add(run, left, right), fail) : fail();
}

function unsupported(operator: string, left: Value, right: Value): never {
  throw new TemplateError(`unsupported operand type(s) for ${operator}: '${typeName(left)}' and '${typeName(right)}'`);
}

function add(run: Run, left: Value, right: Value): Value | undefined {
  if (left instanceof Text && right instanceof Text) {
    run.room(left.text.length + right.text.length);
    run.spend((left.typed.length + right.typed.length) / 16);
    if (!left.isMarkup && !right.isMarkup) return concat(left, right);
    return concat(escapeHtml(left), escapeHtml(right)).asMarkup();
  }
  if (left instanceof List && right instanceof List) {
    run.spend(left.items.length + right.items.length);
    return new List([...left.items, ...right.items]);
  }
  if (left instanceof Tuple && right instanceof Tuple) {
    run.spend(left.items.length + right.items.length);
    return new Tuple([...left.items, ...right.items]);
  }
  return undefined;
}

function multiply(run: Run, value: Value, by: Value): Value | undefined {
  const times = by instanceof Float ? undefined : numberOf(by);
  if (times === undefined) return undefined;
  const count = Math.max(0, Number(times));
  if (value instanceof Text) {
    run.room(value.text.length * count);
    if (!value.isTyped) return new Text(value.text.repeat(count), [], value.isMarkup);
    run.spend(count);
    const builder = new TextBuilder();
    for (let each = 0; each < count; each += 1) builder.add(value);
    return builder.build(value.isMarkup);
  }
  if (!(value instanceof List || value instanceof Tuple)) return undefined;
  run.spend(value.items.length * count);
  const items = Array.from({ length: value.items.length === 0 ? 0 : count }, () => value.items).flat();
  return value instanceof List ? new List(items) : new Tuple(items);
}

function floatResult(operator: BinaryOperator, a: number, b: number): number {
  if (operator === "/") return b === 0 ? byZero() : a / b;
  return operator === "**" ? a ** b : smallResult(operator, a, b);
}

function floatRemainder(a: number, b: number): number {
  const rest = a % b;
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
}

/** Bits of the largest int: what lies beyond is no count of anything. */
const mostBits = 4096;

function wholeResult(operator: BinaryOperator, a: number | bigint, b: number | bigint): Value {
  if (operator === "/") return Number(b) === 0 ? byZero() : new Float(Number(a) / Number(b));
  if (operator === "**" && b < 0) return new Float(Number(a) ** Number(b));
  if (typeof a === "number" && typeof b === "number") {
    const quick = operator === "**" ? a ** b : smallResult(operator, a, b);
    if (Number.isSafeInteger(quick)) return quick === 0 ? 0 : quick;
  }
  return wholeOf(largeResult(operator, BigInt(a), BigInt(b)));
}

/** Of floats as of small ints. */
function smallResult(operator: Exclude<BinaryOperator, "/" | "**">, a: number, b: number): number {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "//":
      return b === 0 ? byZero() : Math.floor(a / b);
    case "%":
      return b === 0 ? byZero() : floatRemainder(a, b);
  }
}

function largeResult(operator: Exclude<BinaryOperator, "/">, a: bigint, b: bigint): bigint {
  const bits = (value: bigint) => value.toString(16).length * 4;
  const size = operator === "**" ? bits(a) * Number(b) : bits(a) + bits(b);
  if (size > mostBits) throw new TemplateError(`an int of more than ${mostBits} bits`);
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "**":
      return a ** b;
    case "//":
      return b === 0n ? byZero() : (a - remainder(a, b)) / b;
    case "%":
      return b === 0n ? byZero() : remainder(a, b);
  }
}

function remainder(a: bigint, b: bigint): bigint {
  const rest = a % b;
  return rest !== 0n && rest < 0n !== b < 0n ? rest + b : rest;
}

/** A number where it is exact. */
export function wholeOf(value: bigint): number | bigint {
  const small = Number(value);
  return Number.isSafeInteger(small) ? small : value;
}

function byZero(): never {
  throw new TemplateError("division by zero");
}

export function negate(value: Value): Value {
  if (value instanceof Undefined) value.fail();
  const number = numberOf(value);
  if (number === undefined) throw new TemplateError(`bad operand type for unary -: '${typeName(value)}'`);
  if (value instanceof Float) return new Float(-value.value);
  return number === 0 ? 0 : -number;
}

export function compare(run: Run, operator: Comparison, left: Value, right: Value): boolean {
  switch (operator) {
    case "==":
      return equals(run, left, right);
    case "!=":
      return !equals(run, left, right);
    case "in":
      return contains(run, right, left);
    case "not in":
      return !contains(run, right, left);
    case "<":
      return order(run, left, right, operator) < 0;
    case "<=":
      return order(run, left, right, operator) <= 0;
    case ">":
      return order(run, left, right, operator) > 0;
    case ">=":
      return order(run, left, right, operator) >= 0;
  }
}

export function equals(run: Run, left: Value, right: Value): boolean {
  run.spend(1);
  if (left instanceof Text) {
    if (!(right instanceof Text) || right.text.length !== left.text.length) return false;
    run.room(left.text.length);
    return left.text === right.text;
  }
  const a = numberOf(left);
  if (a !== undefined) {
    const b = numberOf(right);
    return b !== undefined && a <= b && a >= b; // 1 and 1n are equal
  }
  if (left instanceof List) return right instanceof List && allEqual(run, left.items, right.items);
  if (left instanceof Tuple) return right instanceof Tuple && allEqual(run, left.items, right.items);
  if (left instanceof Dict) {
    if (!(right instanceof Dict) || left.size !== right.size) return false;
    return run.deeper(() =>
      left.entries().every(([key, value]) => {
        const other = right.get(key);
        return other !== undefined && equals(run, value, other);
      }),
    );
  }
  if (left instanceof Range) return right instanceof Range && allEqual(run, itemsOf(run, left), itemsOf(run, right));
  if (left instanceof Undefined) return right instanceof Undefined;
  return left === right;
}

function allEqual(run: Run, left: readonly Value[], right: readonly Value[]): boolean {
  if (left.length !== right.length) return false;
  return run.deeper(() => left.every((item, index) => equals(run, item, right[index]!)));
}

/** Negative, zero or positive, as `left` lies before, at or behind `right`. NaN where a float is none. */
export function order(run: Run, left: Value, right: Value, operator: string): number {
  run.spend(1);
  const a = numberOf(left);
  const b = numberOf(right);
  if (a !== undefined && b !== undefined) return a < b ? -1 : a > b ? 1 : a >= b ? 0 : Number.NaN;
  if (left instanceof Text && right instanceof Text) {
    run.room(Math.min(left.text.length, right.text.length));
    return orderTexts(left.text, right.text);
  }
  if ((left instanceof List && right instanceof List) || (left instanceof Tuple && right instanceof Tuple)) {
    const other = right.items;
    return run.deeper(() => {
      const at = left.items.findIndex((item, index) => index >= other.length || !equals(run, item, other[index]!));
      if (at === -1 || at >= other.length) return left.items.length - other.length;
      return order(run, left.items[at]!, other[at]!, operator);
    });
  }
  if (left instanceof Undefined) left.fail();
  if (right instanceof Undefined) right.fail();
  throw new TemplateError(
    `'${operator}' not supported between instances of '${typeName(left)}' and '${typeName(right)}'`,
  );
}

/** By characters: UTF-16 sorts those beyond the first plane too early. */
function orderTexts(a: string, b: string): number {
  if (a === b) return 0;
  let at = 0;
  while (at < a.length && at < b.length && a.charCodeAt(at) === b.charCodeAt(at)) at += 1;
  if (at === a.length || at === b.length) return a.length - b.length;
  const start = at > 0 && isLow(a.charCodeAt(at)) && isLow(b.charCodeAt(at)) ? at - 1 : at;
  return a.codePointAt(start)! - b.codePointAt(start)!;
}

function isLow(unit: number): boolean {
  return unit >= 0xdc_00 && unit <= 0xdf_ff;
}

export function contains(run: Run, whole: Value, part: Value): boolean {
  if (whole instanceof Text) {
    if (part instanceof Undefined) part.fail();
    if (!(part instanceof Text)) {
      throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(part)}`);
    }
    run.room(whole.text.length);
    return whole.text.includes(part.text);
  }
  if (whole instanceof Dict) return whole.get(part) !== undefined;
  if (whole instanceof View && whole.name === "dict_keys") {
    const id = keyOf(part);
    return whole.items.some((item) => keyOf(item) === id);
  }
  return itemsOf(run, whole).some((item) => equals(run, item, part));
}

/** What a loop over the value meets. A generator is empty afterwards. @throws TemplateError when it cannot be iterated. */
export function itemsOf(run: Run, value: Value): readonly Value[] {
  run.spend(lengthOf(value) ?? 0);
  const items = iterate(value);
  if (items === undefined) throw new TemplateError(`'${typeName(value)}' object is not iterable`);
  return items;
}

function iterate(value: Value): readonly Value[] | undefined {
  if (value instanceof List || value instanceof Tuple || value instanceof View) return value.items;
  if (value instanceof Dict) return value.keys();
  if (value instanceof Text) return value.characters();
  if (value instanceof Range) {
    return Array.from({ length: value.length }, (_, index) => value.from + index * value.step);
  }
  if (value instanceof Generator) return value.rest();
  return value instanceof Undefined ? [] : undefined;
}

/** `len(value)`; undefined where Python has none. */
export function lengthOf(value: Value): number | undefined {
  if (value instanceof Text || value instanceof Range) return value.length;
  if (value instanceof List || value instanceof Tuple || value instanceof View) return value.items.length;
  if (value instanceof Dict) return value.size;
  return value instanceof Undefined ? 0 : undefined;
}
