/** The values of expressions. */
import { ValueAccess } from "./access.ts";
import type { Filter, FilterContext } from "./filter.ts";
import { listFilters } from "./list-filters.ts";
import { Loop } from "./objects.ts";
import { binary, compare, itemsOf, negate } from "./operators.ts";
import { type Predicate, predicates } from "./predicates.ts";
import { toText } from "./print.ts";
import type { Run } from "./run.ts";
import type { Scope } from "./scope.ts";
import type { CallArguments, Expression } from "./syntax.ts";
import { TemplateError } from "./template-error.ts";
import { Text, TextBuilder } from "./text.ts";
import { textFilters } from "./text-filters.ts";
import {
  type Arguments,
  Callable,
  Dict,
  isTrue,
  List,
  numberOf,
  orElse,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";
import { valueFilters } from "./value-filters.ts";

const filters: ReadonlyMap<string, Filter> = new Map(
  Object.entries({ ...textFilters, ...listFilters, ...valueFilters }),
);
const tests: ReadonlyMap<string, Predicate> = new Map(Object.entries(predicates));

const none: Arguments = { positional: [], named: new Map() };

export class Evaluator implements FilterContext {
  readonly run: Run;
  readonly access: ValueAccess;

  constructor(run: Run) {
    this.run = run;
    this.access = new ValueAccess(run);
  }

  evaluate(expression: Expression, scope: Scope): Value {
    this.run.spend(1);
    switch (expression.kind) {
      case "constant":
        return expression.value;
      case "name":
        return orElse(scope.get(expression.name), () => new Undefined(`'${expression.name}' is undefined`));
      case "attribute":
        return this.access.attribute(this.evaluate(expression.of, scope), expression.name);
      case "item":
        return this.#item(expression, scope);
      case "slice":
        return new Tuple([]); // only inside of an index, where #item takes it
      case "list":
        return new List(expression.items.map((item) => this.evaluate(item, scope)));
      case "tuple":
        return new Tuple(expression.items.map((item) => this.evaluate(item, scope)));
      case "dict":
        return Dict.of(
          expression.entries.map(([key, value]) => [this.evaluate(key, scope), this.evaluate(value, scope)]),
        );
      case "call":
        return this.call(this.evaluate(expression.of, scope), this.arguments(expression.given, scope));
      case "filter":
        return this.#filtered(expression, scope);
      case "test":
        return this.test(expression.name, this.evaluate(expression.of, scope), this.arguments(expression.given, scope));
      case "not":
        return !isTrue(this.evaluate(expression.of, scope));
      case "negative":
        return negate(this.evaluate(expression.of, scope));
      case "positive":
        return positive(this.evaluate(expression.of, scope));
      case "binary":
        return binary(
          this.run,
          expression.operator,
          this.evaluate(expression.left, scope),
          this.evaluate(expression.right, scope),
        );
      case "and": {
        const left = this.evaluate(expression.left, scope);
        return isTrue(left) ? this.evaluate(expression.right, scope) : left;
      }
      case "or": {
        const left = this.evaluate(expression.left, scope);
        return isTrue(left) ? left : this.evaluate(expression.right, scope);
      }
      case "join":
        return this.#joined(expression.parts, scope);
      case "compare":
        return this.#compared(expression, scope);
      case "if":
        return this.#conditional(expression, scope);
    }
  }

  /** @throws TemplateError when the value cannot be called. */
  call(callee: Value, given: Arguments): Value {
    const callable = callee instanceof Loop ? callee.again : callee;
    if (callable instanceof Callable) return callable.call(given);
    if (callee instanceof Undefined) callee.fail();
    if (callee instanceof Loop) throw new TemplateError("the loop must have the 'recursive' marker to be called");
    throw new TemplateError(`'${typeName(callee)}' object is not callable`);
  }

  filter(name: string, value: Value, given: Arguments): Value {
    const filter = filters.get(name);
    if (filter === undefined) throw new TemplateError(`there is no filter named '${name}'`);
    return filter(value, given, this);
  }

  test(name: string, value: Value, given: Arguments): boolean {
    if (name === "filter" || name === "test") {
      return value instanceof Text && (name === "filter" ? filters : tests).has(value.text);
    }
    const test = tests.get(name);
    if (test === undefined) throw new TemplateError(`there is no test named '${name}'`);
    return test(value, given.positional, this.run);
  }

  arguments(given: CallArguments, scope: Scope): Arguments {
    if (given.positional.length === 0 && given.named.length === 0 && !given.morePositional && !given.moreNamed)
      return none;
    const positional = given.positional.map((each) => this.evaluate(each, scope));
    const named = new Map(given.named.map(([name, value]) => [name, this.evaluate(value, scope)]));
    if (given.morePositional !== undefined) {
      for (const item of itemsOf(this.run, this.evaluate(given.morePositional, scope))) positional.push(item);
    }
    if (given.moreNamed === undefined) return { positional, named };
    const unpacked = new Map<string, Text>();
    const more = this.evaluate(given.moreNamed, scope);
    if (!(more instanceof Dict)) throw new TemplateError(`argument after ** must be a mapping, not ${typeName(more)}`);
    for (const [key, value] of more.entries()) {
      if (!(key instanceof Text)) throw new TemplateError("keywords must be strings");
      named.set(key.text, value);
      unpacked.set(key.text, key);
    }
    return { positional, named, unpacked };
  }

  #item(expression: Expression & { kind: "item" }, scope: Scope): Value {
    const of = this.evaluate(expression.of, scope);
    const { key } = expression;
    if (key.kind !== "slice") return this.access.item(of, this.evaluate(key, scope));
    const bound = (part: Expression | undefined) => (part === undefined ? null : this.evaluate(part, scope));
    return this.access.slice(of, { from: bound(key.from), to: bound(key.to), step: bound(key.step) });
  }

  #filtered(expression: Expression & { kind: "filter" }, scope: Scope): Value {
    const { of } = expression;
    if (of === undefined) throw new Error("Bug: a filter block's filter is applied by the block");
    return this.filter(expression.name, this.evaluate(of, scope), this.arguments(expression.given, scope));
  }

  #joined(parts: readonly Expression[], scope: Scope): Text {
    const builder = new TextBuilder();
    for (const part of parts) builder.add(toText(this.run, this.evaluate(part, scope)));
    this.run.room(builder.length);
    return builder.build();
  }

  #compared(expression: Expression & { kind: "compare" }, scope: Scope): boolean {
    let left = this.evaluate(expression.first, scope);
    for (const [operator, part] of expression.rest) {
      const right = this.evaluate(part, scope);
      if (!compare(this.run, operator, left, right)) return false;
      left = right;
    }
    return true;
  }

  #conditional(expression: Expression & { kind: "if" }, scope: Scope): Value {
    if (isTrue(this.evaluate(expression.condition, scope))) return this.evaluate(expression.value, scope);
    if (expression.otherwise !== undefined) return this.evaluate(expression.otherwise, scope);
    return new Undefined("the inline if-expression evaluated to false and no else section was defined");
  }
}

function positive(value: Value): Value {
  if (value instanceof Undefined) value.fail();
  if (numberOf(value) === undefined) throw new TemplateError(`bad operand type for unary +: '${typeName(value)}'`);
  return typeof value === "boolean" ? Number(value) : value;
}
