/** Attributes, items and slices of values, and the methods that they have. */
import { take } from "./arguments.ts";
import { equals } from "./operators.ts";
import type { Run } from "./run.ts";
import type { Access } from "./string-format.ts";
import { stringMethod } from "./string-methods.ts";
import { TemplateError } from "./template-error.ts";
import { Text } from "./text.ts";
import {
  type Arguments,
  Callable,
  Dict,
  Float,
  List,
  numberOf,
  orElse,
  Properties,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
  wholeNumber,
} from "./values.ts";

/** Methods that would change a value: Jinja's immutable sandbox refuses them. */
const changingList: ReadonlySet<string> = new Set("append clear extend insert pop remove reverse sort".split(" "));
const changingDict: ReadonlySet<string> = new Set("clear pop popitem setdefault update".split(" "));

export class ValueAccess implements Access {
  readonly #run: Run;

  constructor(run: Run) {
    this.#run = run;
  }

  /** `of.name`: an attribute, else the item of this name, else undefined. */
  attribute(of: Value, name: string): Value {
    const own = this.#own(of, name);
    if (own !== undefined) return own;
    const item = of instanceof Dict ? of.named(name) : undefined;
    return orElse(item, () => missing(of, name));
  }

  /** `of[key]`: an item, else the attribute of this name, else undefined. */
  item(of: Value, key: Value): Value {
    if (of instanceof Undefined) of.fail();
    if (of instanceof Dict) {
      const item = hashable(key) ? of.get(key) : undefined;
      if (item !== undefined) return item;
    }
    const number = key instanceof Float ? undefined : numberOf(key);
    if (number !== undefined) {
      const item = itemAt(of, Number(number));
      if (item !== undefined) return item;
    }
    if (!(key instanceof Text)) return missing(of, key);
    return orElse(this.#own(of, key.text), () => missing(of, key.text));
  }

  slice(of: Value, bounds: { from: Value; to: Value; step: Value }): Value {
    const step = bounds.step === null ? 1 : wholeNumber(bounds.step, "a step");
    if (step === 0) throw new TemplateError("slice step cannot be zero");
    if (of instanceof Undefined) of.fail();
    if (!(of instanceof Text || of instanceof List || of instanceof Tuple || of instanceof Range)) {
      return new Undefined(`'${typeName(of)}' cannot be sliced`);
    }
    const length = of instanceof Text || of instanceof Range ? of.length : of.items.length;
    const { from, to } = bounded(bounds, step, length);
    if (of instanceof Text) {
      this.#run.room(of.text.length);
      this.#run.spend(of.typed.length / 16);
    }
    if (of instanceof Text && step === 1) return from < to ? of.slice(from, to) : of.cut(0, 0);
    if (of instanceof Range) {
      return new Range(of.from + from * of.step, of.from + Math.max(to, -1) * of.step, of.step * step);
    }
    const items = of instanceof Text ? of.characters() : of.items;
    const picked: Value[] = [];
    for (let index = from; step > 0 ? index < to : index > to; index += step) picked.push(items[index]!);
    this.#run.spend(picked.length);
    if (of instanceof List) return new List(picked);
    if (of instanceof Tuple) return new Tuple(picked);
    const text = (picked as Text[]).map((each) => each.text).join(""); // characters of a text
    return of.isTyped ? Text.typed(text) : new Text(text);
  }

  #own(of: Value, name: string): Value | undefined {
    if (of instanceof Undefined) of.fail();
    if (of instanceof Properties) return of.get(name);
    if (of instanceof Callable) return of.properties.get(name);
    if (of instanceof Tuple && of.names.includes(name)) return of.items[of.names.indexOf(name)];
    const method = this.#method(of, name);
    if (method !== undefined) return new Callable(name, method);
    if ((of instanceof List && changingList.has(name)) || (of instanceof Dict && changingDict.has(name))) {
      throw new TemplateError(`access to attribute '${name}' of '${typeName(of)}' object is unsafe.`);
    }
    return undefined;
  }

  #method(of: Value, name: string): ((given: Arguments) => Value) | undefined {
    const run = this.#run;
    if (of instanceof Text) return stringMethod(of, name, run, this);
    if (of instanceof Dict) return dictMethod(run, of, name);
    if (of instanceof List || of instanceof Tuple || of instanceof Range) return listMethod(run, of, name);
    const number = numberOf(of);
    if (number !== undefined && name === "is_integer") return () => Number.isInteger(Number(number));
    return number !== undefined && name === "bit_length" ? () => BigInt(number).toString(2).length : undefined;
  }
}

function hashable(key: Value): boolean {
  return !(key instanceof List || key instanceof Dict);
}

function itemAt(of: Value, index: number): Value | undefined {
  if (of instanceof Text || of instanceof Range) {
    const at = index < 0 ? of.length + index : index;
    if (at < 0 || at >= of.length) return undefined;
    return of instanceof Text ? of.slice(at, at + 1) : of.from + at * of.step;
  }
  return of instanceof List || of instanceof Tuple ? of.items.at(index) : undefined;
}

/** As Python clips a slice: from the first index to before the last, in the step's direction. */
function bounded(bounds: { from: Value; to: Value }, step: number, length: number): { from: number; to: number } {
  const least = step > 0 ? 0 : -1;
  const most = step > 0 ? length : length - 1;
  const clip = (value: Value, otherwise: number) => {
    if (value === null) return otherwise;
    const index = wholeNumber(value, "an index of a slice");
    return Math.min(most, Math.max(least, index < 0 ? index + length : index));
  };
  return { from: clip(bounds.from, step > 0 ? least : most), to: clip(bounds.to, step > 0 ? most : least) };
}

function missing(of: Value, key: string | Value): Undefined {
  if (typeof key === "string") return new Undefined(`'${typeName(of)} object' has no attribute '${key}'`);
  return new Undefined(`'${typeName(of)} object' has no such element`);
}

function dictMethod(run: Run, dict: Dict, name: string): ((given: Arguments) => Value) | undefined {
  switch (name) {
    case "get":
      return (given) => {
        const [key, otherwise] = take("get", given, ["key", "default"], 1);
        return orElse(dict.get(key!), () => orElse(otherwise, () => null)); // required
      };
    case "keys":
      return () => new View("dict_keys", counted(run, dict.keys()));
    case "values":
      return () => new View("dict_values", counted(run, dict.values()));
    case "items":
      return () =>
        new View(
          "dict_items",
          counted(run, dict.entries()).map((entry) => new Tuple(entry)),
        );
    case "copy":
      return () => dict;
    default:
      return undefined;
  }
}

function counted<T>(run: Run, items: readonly T[]): readonly T[] {
  run.spend(items.length);
  return items;
}

function listMethod(run: Run, of: List | Tuple | Range, name: string): ((given: Arguments) => Value) | undefined {
  const items = of instanceof Range ? [] : of.items;
  switch (name) {
    case "count":
      return (given) => {
        const [value] = take("count", given, ["value"], 1);
        return items.filter((item) => equals(run, item, value!)).length; // required
      };
    case "index":
      return (given) => {
        const [value] = take("index", given, ["value"], 1);
        const at = items.findIndex((item) => equals(run, item, value!)); // required
        if (at === -1) throw new TemplateError("the value is not in the list");
        return at;
      };
    case "copy":
      return of instanceof List ? () => of : undefined;
    default:
      return undefined;
  }
}
