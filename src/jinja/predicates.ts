/** Jinja's tests: what may follow `is`. */
import { compare } from "./operators.ts";
import { toText } from "./print.ts";
import type { Run } from "./run.ts";
import type { Comparison } from "./syntax.ts";
import { TemplateError } from "./template-error.ts";
import { Text } from "./text.ts";
import {
  Callable,
  Dict,
  Float,
  Generator,
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

export type Predicate = (value: Value, others: readonly Value[], run: Run) => boolean;

export const predicates: Readonly<Record<string, Predicate>> = {
  defined: (value) => !(value instanceof Undefined),
  undefined: (value) => value instanceof Undefined,
  none: (value) => value === null,
  boolean: (value) => typeof value === "boolean",
  true: (value) => value === true,
  false: (value) => value === false,
  integer: (value) => typeof value === "number" || typeof value === "bigint",
  float: (value) => value instanceof Float,
  number: (value) => numberOf(value) !== undefined,
  string: (value) => value instanceof Text,
  mapping: (value) => value instanceof Dict,
  sequence: (value) =>
    value instanceof Text ||
    value instanceof List ||
    value instanceof Tuple ||
    value instanceof Dict ||
    value instanceof Range ||
    value instanceof Undefined,
  iterable: (value) =>
    value instanceof Text ||
    value instanceof List ||
    value instanceof Tuple ||
    value instanceof Dict ||
    value instanceof Range ||
    value instanceof View ||
    value instanceof Generator ||
    value instanceof Undefined,
  callable: (value) => value instanceof Callable || value instanceof Undefined,
  escaped: (value) => value instanceof Text && value.isMarkup,
  lower: (value, _others, run) => isCased(run, value, /\p{Ll}/u, /[\p{Lu}\p{Lt}]/u),
  upper: (value, _others, run) => isCased(run, value, /\p{Lu}/u, /[\p{Ll}\p{Lt}]/u),
  odd: (value) => remainder(value, 2) === 1,
  even: (value) => remainder(value, 2) === 0,
  divisibleby: (value, [by]) => remainder(value, Number(mustBeNumber(orElse(by, () => null)))) === 0,
  sameas: (value, [other]) =>
    value === other || (value instanceof Text && other instanceof Text && value.text === other.text),
  in: (value, [other], run) =>
    compare(
      run,
      "in",
      value,
      orElse(other, () => null),
    ),
  eq: comparing("=="),
  equalto: comparing("=="),
  "==": comparing("=="),
  ne: comparing("!="),
  "!=": comparing("!="),
  lt: comparing("<"),
  lessthan: comparing("<"),
  "<": comparing("<"),
  le: comparing("<="),
  "<=": comparing("<="),
  gt: comparing(">"),
  greaterthan: comparing(">"),
  ">": comparing(">"),
  ge: comparing(">="),
  ">=": comparing(">="),
};

function isCased(run: Run, value: Value, some: RegExp, none: RegExp): boolean {
  const { text } = toText(run, value);
  run.room(text.length);
  return some.test(text) && !none.test(text);
}

function comparing(operator: Comparison): Predicate {
  return (value, [other], run) => {
    if (other === undefined) throw new TemplateError(`the test needs something to compare with`);
    return compare(run, operator, value, other);
  };
}

function remainder(value: Value, by: number): number {
  const number = Number(mustBeNumber(value));
  if (by === 0) throw new TemplateError("division by zero");
  return Math.abs(number % by);
}

function mustBeNumber(value: Value): number | bigint {
  if (value instanceof Undefined) value.fail();
  const number = numberOf(value);
  if (number === undefined) throw new TemplateError(`a number is needed, not ${typeName(value)}`);
  return number;
}
