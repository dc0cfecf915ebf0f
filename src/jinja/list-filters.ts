/** Jinja's filters over lists and maps. */
import { take } from "./arguments.ts";
import { attributeGetter, type Filter, type FilterContext, folded, nameAndRest } from "./filter.ts";
import { binary, equals, itemsOf, lengthOf, order } from "./operators.ts";
import { TemplateError } from "./template-error.ts";
import { Text } from "./text.ts";
import {
  type Arguments,
  Dict,
  Generator,
  isTrue,
  keyOf,
  List,
  orElse,
  Tuple,
  typeName,
  Undefined,
  type Value,
  wholeNumber,
} from "./values.ts";

export const listFilters: Readonly<Record<string, Filter>> = {
  length,
  count: length,
  list: (value, _given, { run }) => new List(itemsOf(run, value)),
  first(value, _given, { run }) {
    const item = value instanceof Generator ? value.next() : itemsOf(run, value)[0];
    return orElse(item, () => new Undefined("No first item, sequence was empty."));
  },
  last(value, _given, { run }) {
    if (value instanceof Generator) throw new TemplateError("'generator' object is not reversible");
    return orElse(itemsOf(run, value).at(-1), () => new Undefined("No last item, sequence was empty."));
  },
  random(value, _given, { run }) {
    const items = itemsOf(run, value);
    return orElse(
      items[Math.floor(Math.random() * items.length)],
      () => new Undefined("No random item, sequence was empty."),
    );
  },
  reverse(value, _given, { run }) {
    if (!(value instanceof Text)) return new Generator(itemsOf(run, value).toReversed());
    const text = value
      .characters()
      .toReversed()
      .map((each) => each.text)
      .join("");
    run.spend(text.length);
    return value.isTyped ? Text.typed(text) : new Text(text);
  },
  items(value, _given, { run }) {
    if (value instanceof Undefined) return new Generator([]);
    if (!(value instanceof Dict)) throw new TemplateError("Can only get item pairs from a mapping.");
    run.spend(value.size);
    return new Generator(value.entries().map((entry) => new Tuple(entry)));
  },
  map(value, given, context) {
    if (!isTrue(value)) return new Generator([]); // Jinja2 does not look at None, 0 or ""
    const items = itemsOf(context.run, value);
    if (given.positional.length === 0 && given.named.has("attribute")) {
      const unknown = [...given.named.keys()].find((name) => name !== "attribute" && name !== "default");
      if (unknown !== undefined) throw new TemplateError(`Unexpected keyword argument '${unknown}'`);
      const get = attributeGetter(context, given.named.get("attribute"), given.named.get("default"));
      return new Generator(items.map(get));
    }
    const { name, rest } = nameAndRest(given, "map");
    return new Generator(items.map((item) => context.filter(name, item, rest)));
  },
  select: selection({ wanted: true, byAttribute: false }),
  reject: selection({ wanted: false, byAttribute: false }),
  selectattr: selection({ wanted: true, byAttribute: true }),
  rejectattr: selection({ wanted: false, byAttribute: true }),
  sort(value, given, context) {
    const [reverse = false, caseSensitive = false, attribute] = take("sort", given, [
      "reverse",
      "case_sensitive",
      "attribute",
    ]);
    const paths = attribute instanceof Text ? attribute.text.split(",").map((path) => new Text(path)) : [attribute];
    const getters = paths.map((path) => attributeGetter(context, path));
    const keyFor = (item: Value) => {
      const keys = getters.map((get) => (isTrue(caseSensitive) ? get(item) : folded(get(item))));
      return attribute instanceof Text ? new List(keys) : keys[0]!; // there is one getter at least
    };
    return new List(sorted(context, itemsOf(context.run, value), keyFor, isTrue(reverse)));
  },
  dictsort(value, given, context) {
    const [caseSensitive = false, by = new Text("key"), reverse = false] = take("dictsort", given, [
      "case_sensitive",
      "by",
      "reverse",
    ]);
    if (!(value instanceof Dict)) throw new TemplateError(`'${typeName(value)}' object has no attribute 'items'`);
    const place = by instanceof Text && by.text === "value" ? 1 : 0;
    if (place === 0 && !(by instanceof Text && by.text === "key")) {
      throw new TemplateError('You can only sort by either "key" or "value"');
    }
    const keyFor = (item: Value) => {
      const part = (item as Tuple).items[place]!; // made below
      return isTrue(caseSensitive) ? part : folded(part);
    };
    const entries = value.entries().map((entry) => new Tuple(entry));
    return new List(sorted(context, entries, keyFor, isTrue(reverse)));
  },
  unique(value, given, context) {
    const [caseSensitive = false, attribute] = take("unique", given, ["case_sensitive", "attribute"]);
    const get = attributeGetter(context, attribute);
    const seen = new Set<string>();
    const kept = itemsOf(context.run, value).filter((item) => {
      const part = get(item);
      if (part instanceof Text) context.run.spend(part.text.length / 8); // folded, and compared as a key
      const id = keyOf(isTrue(caseSensitive) ? part : folded(part));
      const isNew = !seen.has(id);
      seen.add(id);
      return isNew;
    });
    return new Generator(kept);
  },
  min: extreme("min"),
  max: extreme("max"),
  sum(value, given, context) {
    const [attribute, start = 0] = take("sum", given, ["attribute", "start"]);
    const get = attributeGetter(context, attribute);
    let sum: Value = start;
    for (const item of itemsOf(context.run, value)) sum = binary(context.run, "+", sum, get(item));
    return sum;
  },
  groupby(value, given, context) {
    const [attribute, otherwise, caseSensitive = false] = take(
      "groupby",
      given,
      ["attribute", "default", "case_sensitive"],
      1,
    );
    const get = attributeGetter(context, attribute, otherwise);
    const keyFor = (item: Value) => (isTrue(caseSensitive) ? get(item) : folded(get(item)));
    const groups: { key: Value; items: Value[] }[] = [];
    for (const item of sorted(context, itemsOf(context.run, value), keyFor, false)) {
      const key = keyFor(item);
      const last = groups.at(-1);
      if (last !== undefined && equals(context.run, last.key, key)) last.items.push(item);
      else groups.push({ key, items: [item] });
    }
    return new List(groups.map(({ items }) => new Tuple([get(items[0]!), new List(items)], ["grouper", "list"])));
  },
  batch(value, given, { run }) {
    const [count, fill] = take("batch", given, ["linecount", "fill_with"], 1);
    const size = wholeNumber(count!, "linecount"); // required
    const items = itemsOf(run, value);
    const batches: Value[][] = [];
    for (const item of items) {
      const last = batches.at(-1);
      if (last === undefined || last.length === size) batches.push([item]);
      else last.push(item);
    }
    const last = batches.at(-1);
    if (last !== undefined && fill !== undefined && fill !== null) {
      run.spend(Math.max(0, size - last.length));
      while (last.length < size) last.push(fill);
    }
    return new Generator(batches.map((batch) => new List(batch)));
  },
  slice(value, given, { run }) {
    const [count, fill] = take("slice", given, ["slices", "fill_with"], 1);
    const slices = wholeNumber(count!, "slices"); // required
    const items = itemsOf(run, value);
    if (slices === 0) throw new TemplateError("division by zero");
    run.spend(Math.max(0, slices));
    const each = Math.floor(items.length / slices);
    const longer = items.length - each * slices;
    const parts = Array.from({ length: Math.max(0, slices) }, (_, index) => {
      const from = index * each + Math.min(index, longer);
      const part = items.slice(from, from + each + (index < longer ? 1 : 0));
      return new List(fill !== undefined && fill !== null && index >= longer ? [...part, fill] : part);
    });
    return new Generator(parts);
  },
};

function length(value: Value): Value {
  const size = lengthOf(value);
  if (size === undefined) throw new TemplateError(`object of type '${typeName(value)}' has no len()`);
  return size;
}

function selection({ wanted, byAttribute }: { wanted: boolean; byAttribute: boolean }): Filter {
  return (value, given, context) => {
    if (!isTrue(value)) return new Generator([]);
    const path = given.positional[0];
    if (byAttribute && path === undefined) throw new TemplateError("Missing parameter for attribute name");
    const get = byAttribute ? attributeGetter(context, path) : (item: Value) => item;
    const rest: Arguments = byAttribute ? { ...given, positional: given.positional.slice(1) } : given;
    const holds = testOf(rest, context);
    return new Generator(itemsOf(context.run, value).filter((item) => holds(get(item)) === wanted));
  };
}

function testOf(given: Arguments, context: FilterContext): (value: Value) => boolean {
  if (given.positional.length === 0) return isTrue;
  const { name, rest } = nameAndRest(given, "select");
  return (value) => context.test(name, value, rest);
}

function sorted(
  { run }: FilterContext,
  items: readonly Value[],
  keyFor: (item: Value) => Value,
  reverse: boolean,
): Value[] {
  const keyed = items.map((item) => ({ item, key: keyFor(item) }));
  const direction = reverse ? -1 : 1;
  return keyed.sort((a, b) => direction * (order(run, a.key, b.key, "<") || 0)).map(({ item }) => item);
}

function extreme(which: "min" | "max"): Filter {
  return (value, given, context) => {
    const [caseSensitive = false, attribute] = take(which, given, ["case_sensitive", "attribute"]);
    const get = attributeGetter(context, attribute);
    const keyFor = (item: Value) => (isTrue(caseSensitive) ? get(item) : folded(get(item)));
    let best: Value | undefined;
    for (const item of itemsOf(context.run, value)) {
      const isBetter =
        best === undefined ||
        (which === "min"
          ? order(context.run, keyFor(item), keyFor(best), "<") < 0
          : order(context.run, keyFor(item), keyFor(best), ">") > 0);
      if (isBetter) best = item;
    }
    return orElse(best, () => new Undefined("No aggregated item, sequence was empty."));
  };
}
