/** What a filter or a test is. */
import type { ValueAccess } from "./access.ts";
import type { Run } from "./run.ts";
import { TemplateError } from "./template-error.ts";
import { Text } from "./text.ts";
import { type Arguments, Undefined, type Value } from "./values.ts";

export interface FilterContext {
  readonly run: Run;
  readonly access: ValueAccess;
  /** A filter or test by its name. @throws TemplateError when there is none. */
  filter(name: string, value: Value, given: Arguments): Value;
  test(name: string, value: Value, given: Arguments): boolean;
}

export type Filter = (value: Value, given: Arguments, context: FilterContext) => Value;

/** Follows `a.b.0` from a value. */
export function attributeGetter(
  { access }: FilterContext,
  path: Value | undefined,
  otherwise?: Value,
): (item: Value) => Value {
  if (path === undefined || path === null) return (item) => item;
  const parts: Value[] =
    path instanceof Text
      ? path.text.split(".").map((part) => (/^\d+$/.test(part) ? Number(part) : new Text(part)))
      : [path];
  return (item) => {
    let value = item;
    for (const part of parts) {
      value = access.item(value, part);
      if (value instanceof Undefined && otherwise !== undefined && otherwise !== null) value = otherwise;
    }
    return value;
  };
}

/** For comparing without regard to case. */
export function folded(value: Value): Value {
  return value instanceof Text ? new Text(value.text.toLowerCase()) : value;
}

/** The first of the positional arguments as a text, and the others. */
export function nameAndRest(given: Arguments, callee: string): { name: string; rest: Arguments } {
  const [first, ...positional] = given.positional;
  if (!(first instanceof Text)) throw new TemplateError(`${callee} needs a name`);
  return { name: first.text, rest: { ...given, positional } };
}
