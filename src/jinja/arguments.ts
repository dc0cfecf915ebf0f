/** What a call was given, by the names of what it takes. */
import { TemplateError } from "./template-error.ts";
import { Text } from "./text.ts";
import { type Arguments, typeName, Undefined, type Value } from "./values.ts";

/**
 * The values of `parameters`, undefined where none was given. A name with a star is given by position only.
 *
 * @throws TemplateError for too many, unknown or doubled ones, and when one of the first `required` is missing.
 */
export function take(
  callee: string,
  given: Arguments,
  parameters: readonly string[],
  required = 0,
): readonly (Value | undefined)[] {
  const { positional, named } = given;
  if (positional.length > parameters.length) {
    throw new TemplateError(`${callee} takes at most ${parameters.length} arguments, ${positional.length} were given`);
  }
  for (const name of named.keys()) {
    const index = parameters.indexOf(name);
    if (index === -1) throw new TemplateError(`${callee} got an unexpected argument '${name}'`);
    if (index < positional.length) throw new TemplateError(`${callee} got two values for '${name}'`);
  }
  const values = parameters.map((name, index) => (index < positional.length ? positional[index] : named.get(name)));
  for (let index = 0; index < required; index += 1) {
    if (values[index] === undefined) throw new TemplateError(`${callee} needs the argument '${parameters[index]}'`);
  }
  return values;
}

/** @throws TemplateError when it is something else. */
export function mustBeText(value: Value | undefined, callee: string): Text {
  if (value instanceof Text) return value;
  if (value instanceof Undefined) value.fail();
  throw new TemplateError(`${callee} needs a str, not ${value === undefined ? "nothing" : typeName(value)}`);
}
