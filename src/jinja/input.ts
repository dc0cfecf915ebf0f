/** What a request says, as values of the template language. */
import { TemplateError } from "./template-error.ts";
import { Text } from "./text.ts";
import { Dict, Float, List, Undefined, type Value } from "./values.ts";

/** Deeper than any chat, tool definition or argument. */
const deepest = 64;

/** A parsed JSON value; every text in it, also the names of fields, counts as typed. */
export function typedValue(json: unknown, depth = 0): Value {
  if (depth > deepest) throw new TemplateError(`the input is nested deeper than ${deepest} levels`);
  switch (typeof json) {
    case "string":
      return Text.typed(json);
    case "number":
      return Number.isInteger(json) ? wholeOrBig(json) : new Float(json);
    case "bigint":
    case "boolean":
      return json;
    case "object":
      if (json === null) return null;
      if (Array.isArray(json)) return new List(json.map((item) => typedValue(item, depth + 1)));
      return Dict.of(
        Object.entries(json).flatMap(([key, value]) =>
          value === undefined ? [] : [[Text.typed(key), typedValue(value, depth + 1)] as const],
        ),
      );
    default:
      return new Undefined(`a ${typeof json} is no value of a template`);
  }
}

function wholeOrBig(value: number): Value {
  return Number.isSafeInteger(value) ? (value === 0 ? 0 : value) : BigInt(value);
}

/** A text of JSON, read as Python does: 1 and 1.0 differ, and ints have no end. @throws SyntaxError */
export function parseJson(text: string): Value {
  return new JsonReader(text).read();
}

const space = /[ \t\n\r]*/y;
const number = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?/y;
const string = /"[^"\\\0-\x1f]*(?:\\(?:["\\/bfnrt]|u[\da-fA-F]{4})[^"\\\0-\x1f]*)*"/y;
const words: readonly (readonly [string, Value])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
  ["NaN", new Float(Number.NaN)],
  ["Infinity", new Float(Infinity)],
  ["-Infinity", new Float(-Infinity)],
];
/** More digits than Python reads. */
const mostDigits = 4300;

class JsonReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  read(): Value {
    const value = this.#value(0);
    this.#match(space);
    if (this.#at < this.#text.length) this.#fail();
    return value;
  }

  #value(depth: number): Value {
    if (depth > deepest) throw new SyntaxError(`it is nested deeper than ${deepest} levels`);
    this.#match(space);
    const word = words.find(([name]) => this.#text.startsWith(name, this.#at));
    if (word !== undefined) {
      this.#at += word[0].length;
      return word[1];
    }
    const first = this.#text[this.#at];
    if (first === "[") return new List(this.#all("]", () => this.#value(depth + 1)));
    if (first === "{") return Dict.of(this.#all("}", () => this.#entry(depth)));
    if (first === '"') return this.#string();
    return this.#number();
  }

  #all<T>(end: string, read: () => T): T[] {
    this.#at += 1;
    const items: T[] = [];
    this.#match(space);
    if (this.#skip(end)) return items;
    do {
      items.push(read());
      this.#match(space);
    } while (this.#skip(","));
    if (!this.#skip(end)) this.#fail();
    return items;
  }

  #entry(depth: number): readonly [Value, Value] {
    this.#match(space);
    const key = this.#string();
    this.#match(space);
    if (!this.#skip(":")) this.#fail();
    return [key, this.#value(depth + 1)];
  }

  #string(): Text {
    const quoted = this.#match(string);
    return Text.typed(quoted === undefined ? this.#fail() : (JSON.parse(quoted) as string));
  }

  #number(): Value {
    const digits = this.#match(number);
    if (digits === undefined || digits === "") return this.#fail();
    if (/[.eE]/.test(digits)) return new Float(Number(digits));
    if (digits.length > mostDigits) throw new SyntaxError(`it has a number of more than ${mostDigits} digits`);
    const value = Number(digits);
    return Number.isSafeInteger(value) ? (value === 0 ? 0 : value) : BigInt(digits);
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    this.#at += found?.length ?? 0;
    return found;
  }

  #skip(text: string): boolean {
    if (!this.#text.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #fail(): never {
    throw new SyntaxError(`it is not JSON at character ${this.#at + 1}`);
  }
}
