/** JSON as Python's `json.dumps` writes it, and JSON texts as values. */
import { itemsOf, order } from "./operators.ts";
import { floatText } from "./print.ts";
import type { Run } from "./run.ts";
import { TemplateError } from "./template-error.ts";
import { Text, TextBuilder } from "./text.ts";
import { Dict, Float, List, numberOf, Tuple, typeName, type Value, wholeNumber } from "./values.ts";

export interface JsonForm {
  readonly ascii: boolean;
  /** None, a number of spaces, or the text itself. */
  readonly indent: Value;
  /** None, or a pair of texts. */
  readonly separators: Value;
  readonly sortKeys: boolean;
}

/** @throws TemplateError for what JSON has no form for. */
export function toJson(run: Run, value: Value, form: JsonForm): Text {
  const writer = new JsonWriter(run, form);
  writer.write(value, 0);
  return writer.builder.build();
}

class JsonWriter {
  readonly builder = new TextBuilder();
  readonly #run: Run;
  readonly #form: JsonForm;
  readonly #indent: Text | undefined;
  readonly #itemEnd: Text;
  readonly #keyEnd: Text;

  constructor(run: Run, form: JsonForm) {
    this.#run = run;
    this.#form = form;
    this.#indent = indentOf(run, form.indent);
    const [itemEnd, keyEnd] = form.separators === null ? [] : itemsOf(run, form.separators);
    this.#itemEnd = itemEnd instanceof Text ? itemEnd : new Text(this.#indent === undefined ? ", " : ",");
    this.#keyEnd = keyEnd instanceof Text ? keyEnd : new Text(": ");
  }

  write(value: Value, depth: number): void {
    this.#run.spend(1);
    this.#run.fits(this.builder.length);
    if (value === null || typeof value === "boolean" || value instanceof Float || numberOf(value) !== undefined) {
      this.builder.own(plainJson(value));
    } else if (value instanceof Text) this.#writeText(value);
    else if (value instanceof List || value instanceof Tuple) {
      this.#writeAll(["[", "]"], value.items, depth, (item) => this.write(item, depth + 1));
    } else if (value instanceof Dict) {
      this.#writeAll(["{", "}"], this.#entriesOf(value), depth, ([key, item]) => {
        this.#writeText(keyText(key));
        this.builder.add(this.#keyEnd);
        this.write(item, depth + 1);
      });
    } else throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`);
  }

  #entriesOf(dict: Dict): readonly (readonly [Value, Value])[] {
    const entries = dict.entries();
    return this.#form.sortKeys ? entries.sort(([a], [b]) => order(this.#run, a, b, "<")) : entries;
  }

  #writeAll<T>([open, close]: [string, string], items: readonly T[], depth: number, write: (item: T) => void): void {
    this.builder.own(open);
    this.#run.deeper(() => {
      for (const [index, item] of items.entries()) {
        if (index > 0) this.builder.add(this.#itemEnd);
        this.#newLine(depth + 1);
        write(item);
      }
    });
    if (items.length > 0) this.#newLine(depth);
    this.builder.own(close);
  }

  #newLine(depth: number): void {
    if (this.#indent === undefined) return;
    const { text, isTyped } = this.#indent;
    this.#run.room(depth * text.length);
    this.builder.own("\n").marked(text.repeat(depth), isTyped);
  }

  #writeText(text: Text): void {
    this.#run.room(text.text.length);
    const special = this.#form.ascii ? /["\\]|[^ -~]/g : /["\\\0-\x1f]/g;
    this.builder.own('"');
    let plainFrom = 0;
    // Units, not characters: JSON writes a pair of surrogates as two.
    for (const { index } of text.text.matchAll(special)) {
      this.builder.add(text.cut(plainFrom, index));
      const isTyped = text.isTyped && text.cut(index, index + 1).isTyped;
      this.builder.marked(escapeUnit(text.text.charCodeAt(index)), isTyped);
      plainFrom = index + 1;
    }
    this.builder.add(text.cut(plainFrom)).own('"');
  }
}

function indentOf(run: Run, indent: Value): Text | undefined {
  if (indent === null) return undefined;
  if (indent instanceof Text) return indent;
  const width = Math.max(0, wholeNumber(indent, "an indent"));
  run.room(width);
  return new Text(" ".repeat(width));
}

const shortEscapes: ReadonlyMap<number, string> = new Map([
  [0x22, '\\"'],
  [0x5c, "\\\\"],
  [0x0a, "\\n"],
  [0x0d, "\\r"],
  [0x09, "\\t"],
  [0x0c, "\\f"],
  [0x08, "\\b"],
]);

function escapeUnit(unit: number): string {
  return shortEscapes.get(unit) ?? `\\u${unit.toString(16).padStart(4, "0")}`;
}

function plainJson(value: Value): string {
  if (value === null) return "null";
  if (typeof value === "boolean") return value ? "true" : "false";
  if (!(value instanceof Float)) return String(numberOf(value));
  if (Number.isNaN(value.value)) return "NaN";
  return Number.isFinite(value.value) ? floatText(value.value) : value.value > 0 ? "Infinity" : "-Infinity";
}

function keyText(key: Value): Text {
  if (key instanceof Text) return key;
  if (key === null || numberOf(key) !== undefined) return new Text(plainJson(key));
  throw new TemplateError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
}
