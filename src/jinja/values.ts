/**
 * What expressions of a template are worth: Python's values, as far as templates meet them. Lists and maps never change, as in
 * Jinja's immutable sandbox; nothing here is an object of JavaScript that a template could look into.
 */
import { TemplateError } from "./template-error.ts";
import { Text } from "./text.ts";

export type Value =
  | Undefined
  | null
  | boolean
  /** Python's int; beyond 2^53 a bigint. */
  | number
  | bigint
  | Float
  | Text
  | List
  | Tuple
  | Dict
  | Range
  | View
  | Generator
  | Callable
  | Properties;

/** A name, attribute or argument that is not there. Most uses of it are errors; printing, looping and asking are not. */
export class Undefined {
  readonly message: string;

  constructor(message: string) {
    this.message = message;
  }

  fail(): never {
    throw new TemplateError(this.message);
  }
}

export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

export class List {
  readonly items: readonly Value[];

  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

export class Tuple {
  readonly items: readonly Value[];
  /** Names of the places, for those that have some. */
  readonly names: readonly string[];

  constructor(items: readonly Value[], names: readonly string[] = []) {
    this.items = items;
    this.names = names;
  }
}

/** Keys are compared as Python does: 1, 1.0 and True are one key. */
export class Dict {
  readonly #entries = new Map<string, readonly [key: Value, value: Value]>();

  static of(entries: Iterable<readonly [key: Value, value: Value]>): Dict {
    const dict = new Dict();
    for (const [key, value] of entries) {
      const id = keyOf(key);
      const known = dict.#entries.get(id);
      dict.#entries.set(id, [known === undefined ? key : known[0], value]);
    }
    return dict;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(keyOf(key))?.[1];
  }

  /** By the text of a key. */
  named(name: string): Value | undefined {
    return this.#entries.get(`s${name}`)?.[1];
  }

  keys(): Value[] {
    return Array.from(this.#entries.values(), ([key]) => key);
  }

  values(): Value[] {
    return Array.from(this.#entries.values(), ([, value]) => value);
  }

  entries(): (readonly [key: Value, value: Value])[] {
    return [...this.#entries.values()];
  }
}

export class Range {
  readonly from: number;
  readonly to: number;
  readonly step: number;

  constructor(from: number, to: number, step: number) {
    this.from = from;
    this.to = to;
    this.step = step;
  }

  get length(): number {
    return Math.max(0, Math.ceil((this.to - this.from) / this.step));
  }
}

/** What `keys`, `values` and `items` of a map give. */
export class View {
  readonly name: "dict_keys" | "dict_values" | "dict_items";
  readonly items: readonly Value[];

  constructor(name: View["name"], items: readonly Value[]) {
    this.name = name;
    this.items = items;
  }
}

/** Read once, and without a length. */
export class Generator {
  readonly #items: readonly Value[];
  #next = 0;

  constructor(items: readonly Value[]) {
    this.#items = items;
  }

  next(): Value | undefined {
    return this.#next < this.#items.length ? this.#items[this.#next++] : undefined;
  }

  rest(): readonly Value[] {
    const rest = this.#items.slice(this.#next);
    this.#next = this.#items.length;
    return rest;
  }
}

export interface Arguments {
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
  /** Names that came as the keys of a map (`**map`), and with them what was typed of them. */
  readonly unpacked?: ReadonlyMap<string, Text>;
}

/** The named arguments as the entries of a map. */
export function namedEntries({ named, unpacked }: Omit<Arguments, "positional">): [key: Text, value: Value][] {
  return Array.from(named, ([name, value]) => [unpacked?.get(name) ?? new Text(name), value]);
}

export class Callable {
  readonly name: string;
  readonly call: (given: Arguments) => Value;
  /** What can be asked of it, such as a macro's name. */
  readonly properties: ReadonlyMap<string, Value>;

  constructor(name: string, call: (given: Arguments) => Value, properties: ReadonlyMap<string, Value> = new Map()) {
    this.name = name;
    this.call = call;
    this.properties = properties;
  }
}

/** An object with attributes of its own: a namespace, the `loop` of a loop, a cycler. */
export abstract class Properties {
  abstract readonly kind: string;
  abstract get(name: string): Value | undefined;
}

/** What Python would call the value's type, for messages. */
export function typeName(value: Value): string {
  if (value instanceof Undefined) return "Undefined";
  if (value === null) return "NoneType";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number" || typeof value === "bigint") return "int";
  if (value instanceof Float) return "float";
  if (value instanceof Text) return value.isMarkup ? "Markup" : "str";
  if (value instanceof List) return "list";
  if (value instanceof Tuple) return "tuple";
  if (value instanceof Dict) return "dict";
  if (value instanceof Range) return "range";
  if (value instanceof View) return value.name;
  if (value instanceof Generator) return "generator";
  return value instanceof Callable ? "function" : value.kind;
}

export function isTrue(value: Value): boolean {
  if (value instanceof Undefined || value === null) return false;
  if (typeof value === "boolean") return value;
  if (typeof value === "number" || typeof value === "bigint") return value !== 0 && value !== 0n;
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Text) return value.text !== "";
  if (value instanceof List || value instanceof Tuple || value instanceof View) return value.items.length > 0;
  if (value instanceof Dict) return value.size > 0;
  if (value instanceof Range) return value.length > 0;
  return true;
}

/** The value when there is one: None is one, which `??` would take for nothing. */
export function orElse(value: Value | undefined, otherwise: () => Value): Value {
  return value === undefined ? otherwise() : value;
}

/** The number behind an int, a bool or a float; undefined for others. */
export function numberOf(value: Value): number | bigint | undefined {
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value === "number" || typeof value === "bigint") return value;
  return value instanceof Float ? value.value : undefined;
}

/** An int that fits, for indices and counts. */
export function wholeNumber(value: Value, what: string): number {
  const number = value instanceof Float ? undefined : numberOf(value);
  if (number === undefined) {
    if (value instanceof Undefined) value.fail();
    throw new TemplateError(`${what} must be an int, not ${typeName(value)}`);
  }
  const whole = Number(number);
  return Number.isSafeInteger(whole) ? whole : Math.sign(whole) * Number.MAX_SAFE_INTEGER;
}

/** A text that two keys share exactly when Python calls them equal. */
export function keyOf(key: Value, room: { items: number } = { items: largestKey }): string {
  if (key instanceof Text) return `s${key.text}`;
  if (key === null) return "none";
  const number = numberOf(key);
  if (number !== undefined) return `n${number}`;
  if (key instanceof Undefined) return "undefined";
  if (!(key instanceof Tuple)) throw new TemplateError(`unhashable type: '${typeName(key)}'`);
  room.items -= key.items.length;
  if (room.items < 0) throw new TemplateError(`a tuple of more than ${largestKey} values cannot be a key`);
  return `t${JSON.stringify(key.items.map((item) => keyOf(item, room)))}`;
}

/** Values in a tuple that is a key: tuples of tuples grow without growing in memory. */
const largestKey = 1000;
