/** The calls of tools in an assistant's message, as templates get them. */
import { RepriseError } from "../errors.ts";
import { parseJson, typedValue } from "../jinja/input.ts";
import { Text } from "../jinja/text.ts";
import { Dict, List, type Value } from "../jinja/values.ts";

/**
 * Undefined when there are none: templates ask whether there are some by `is defined`.
 *
 * @param field the calls' path, for refusals
 * @throws RepriseError BAD_REQUEST for arguments that are no JSON
 */
export function toolCallsValue(calls: unknown, field: string): Value | undefined {
  if (!Array.isArray(calls) || calls.length === 0) return undefined;
  return new List(calls.map((call, at) => callValue(call, `${field}[${at}]`)));
}

/** Arguments come as JSON text, and templates expect the value: vLLM and llama-server read it as well. */
function callValue(call: unknown, field: string): Value {
  const value = typedValue(call);
  if (!(value instanceof Dict)) return value;
  const called = value.named("function");
  if (!(called instanceof Dict)) return value;
  const given = called.named("arguments");
  const isEmpty = given === undefined || given === null || (given instanceof Text && given.text === "");
  const read = isEmpty
    ? Dict.of([])
    : given instanceof Text
      ? argumentsOf(given.text, `${field}.function.arguments`)
      : given;
  const key = (name: string) => Text.typed(name);
  return Dict.of([...value.entries(), [key("function"), Dict.of([...called.entries(), [key("arguments"), read]])]]);
}

function argumentsOf(text: string, field: string): Value {
  try {
    return parseJson(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new RepriseError("BAD_REQUEST", `${field} must be JSON text: ${error.message}`, { field });
  }
}
