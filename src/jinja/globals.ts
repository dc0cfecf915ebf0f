/** The functions that every template can call: Jinja's own, and those that transformers adds. */
import { mustBeText, take } from "./arguments.ts";
import { Cycler, Namespace } from "./objects.ts";
import { itemsOf } from "./operators.ts";
import type { Run } from "./run.ts";
import { formatTime } from "./strftime.ts";
import { TemplateError } from "./template-error.ts";
import { emptyText, Text, TextBuilder } from "./text.ts";
import { type Arguments, Callable, Dict, namedEntries, orElse, Range, type Value, wholeNumber } from "./values.ts";

/** As in Jinja's sandbox. */
const longestRange = 100_000;

export function globals(run: Run, now: () => Date): readonly (readonly [name: string, value: Value])[] {
  const functions: Readonly<Record<string, (given: Arguments) => Value>> = {
    range,
    dict: (given) => Dict.of(entriesOf(run, given)),
    namespace: (given) =>
      new Namespace(entriesOf(run, given).map(([key, value]) => [mustBeText(key, "namespace").text, value])),
    cycler: ({ positional }) => new Cycler(positional),
    joiner,
    raise_exception(given) {
      const [message] = take("raise_exception", given, ["message"], 1);
      throw new TemplateError(message instanceof Text ? message.text : "the template raised an exception");
    },
    strftime_now(given) {
      const [format] = take("strftime_now", given, ["format"], 1);
      const asked = mustBeText(format, "strftime_now");
      run.spend(asked.text.length / 2); // each field is made by itself
      return new TextBuilder().marked(formatTime(asked.text, now()), asked.isTyped).build();
    },
  };
  return Object.entries(functions).map(([name, call]) => [name, new Callable(name, call)]);
}

function range(given: Arguments): Value {
  const [first, second, third] = take("range", given, ["start", "stop", "step"], 1);
  const from = second === undefined ? 0 : wholeNumber(first!, "a range's start"); // required
  const to = wholeNumber(
    orElse(second, () => first!),
    "a range's end",
  ); // required
  const step = third === undefined ? 1 : wholeNumber(third, "a range's step");
  if (step === 0) throw new TemplateError("range() arg 3 must not be zero");
  const values = new Range(from, to, step);
  if (values.length > longestRange) {
    throw new TemplateError(`Range too big. The sandbox blocks ranges larger than MAX_RANGE (${longestRange}).`);
  }
  return values;
}

/** A map or pairs first, and names with values. */
function entriesOf(run: Run, { positional, ...names }: Arguments): (readonly [Value, Value])[] {
  const [first] = positional;
  if (positional.length > 1) throw new TemplateError("dict expected at most 1 argument");
  const pairs =
    first === undefined
      ? []
      : first instanceof Dict
        ? first.entries()
        : itemsOf(run, first).map((pair) => {
            const [key, value, ...more] = itemsOf(run, pair);
            if (key === undefined || value === undefined || more.length > 0)
              throw new TemplateError("dict needs pairs");
            return [key, value] as const;
          });
  return [...pairs, ...namedEntries(names)];
}

function joiner(given: Arguments): Value {
  const [separator = new Text(", ")] = take("joiner", given, ["sep"]);
  let isFirst = true;
  return new Callable("joiner", () => {
    const text = isFirst ? emptyText : separator;
    isFirst = false;
    return text;
  });
}
