/** What statements do: the text they write, the names they give. */
import { Evaluator } from "./evaluator.ts";
import { Loop, Namespace } from "./objects.ts";
import { itemsOf } from "./operators.ts";
import { toText } from "./print.ts";
import type { Run } from "./run.ts";
import { Scope } from "./scope.ts";
import type { Body, Expression, Macro, Statement, Target } from "./syntax.ts";
import { TemplateError } from "./template-error.ts";
import { Text, TextBuilder } from "./text.ts";
import {
  type Arguments,
  Callable,
  Dict,
  isTrue,
  namedEntries,
  orElse,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

/** How a body ended: by itself, or by a statement that leaves the loop or its turn. */
type Ending = "end" | "break" | "continue";

export class Renderer {
  readonly #run: Run;
  readonly #evaluator: Evaluator;
  readonly #context: Scope;

  /** @param context holds the template's variables, and gets what the top level sets. */
  constructor(run: Run, context: Scope) {
    this.#run = run;
    this.#evaluator = new Evaluator(run);
    this.#context = context;
  }

  render(body: Body): Text {
    return this.#captured(body, this.#context);
  }

  #captured(body: Body, scope: Scope): Text {
    const out = new TextBuilder();
    this.#body(body, scope, out);
    return out.build();
  }

  #body(body: Body, scope: Scope, out: TextBuilder): Ending {
    for (const statement of body) {
      try {
        const ending = this.#statement(statement, scope, out);
        if (ending !== "end") return ending;
      } catch (error) {
        if (error instanceof TemplateError) error.line ??= statement.line;
        throw error;
      }
    }
    return "end";
  }

  #statement(statement: Statement, scope: Scope, out: TextBuilder): Ending {
    this.#run.spend(1);
    switch (statement.kind) {
      case "text":
        this.#run.fits(out.length + statement.text.length);
        out.own(statement.text);
        return "end";
      case "output":
        this.#write(toText(this.#run, this.#evaluator.evaluate(statement.value, scope)), out);
        return "end";
      case "if": {
        const branch = statement.branches.find(({ condition }) => isTrue(this.#evaluator.evaluate(condition, scope)));
        return this.#body(branch?.body ?? statement.otherwise, scope, out);
      }
      case "for":
        return this.#for(statement, this.#evaluator.evaluate(statement.over, scope), scope, out, 1);
      case "set":
        this.#assign(statement.target, this.#evaluator.evaluate(statement.value, scope), scope);
        return "end";
      case "set-block": {
        const text = this.#captured(statement.body, new Scope(scope));
        this.#assign(statement.target, this.#filtered(text, statement.filters, scope), scope);
        return "end";
      }
      case "macro":
        scope.set(statement.name, this.#macro(statement.name, statement.macro, scope));
        return "end";
      case "call-block":
        this.#callBlock(statement, scope, out);
        return "end";
      case "filter-block": {
        const text = this.#captured(statement.body, new Scope(scope));
        this.#write(toText(this.#run, this.#filtered(text, statement.filters, scope)), out);
        return "end";
      }
      case "with": {
        const inner = new Scope(scope);
        const values = statement.values.map((value) => this.#evaluator.evaluate(value, scope));
        for (const [index, target] of statement.targets.entries()) this.#assign(target, values[index]!, inner);
        return this.#body(statement.body, inner, out);
      }
      case "scope":
        this.#body(statement.body, new Scope(scope), out);
        return "end";
      case "block":
        this.#body(statement.body, new Scope(this.#context), out);
        return "end";
      case "break":
      case "continue":
        return statement.kind;
    }
  }

  #write(text: Text, out: TextBuilder): void {
    this.#run.fits(out.length + text.text.length);
    this.#run.spend(text.typed.length / 16);
    out.add(text);
  }

  #for(statement: Statement & { kind: "for" }, over: Value, scope: Scope, out: TextBuilder, depth: number): Ending {
    const all = itemsOf(this.#run, over);
    const { filter, target } = statement;
    const items = filter === undefined ? all : all.filter((item) => this.#passes(filter, target, item, scope));
    const again = statement.isRecursive
      ? new Callable("loop", ({ positional }) => {
          const inner = new TextBuilder();
          const [next] = positional;
          if (next === undefined) throw new TemplateError("a recursive loop needs something to go over");
          this.#run.deeper(() => this.#for(statement, next, scope, inner, depth + 1));
          return inner.build();
        })
      : undefined;
    const loop = new Loop(this.#run, items, depth, again);
    for (const [index, item] of items.entries()) {
      const inner = new Scope(scope);
      loop.index = index;
      inner.set("loop", loop);
      this.#assign(statement.target, item, inner);
      if (this.#body(statement.body, inner, out) === "break") return "end";
    }
    return items.length === 0 ? this.#body(statement.otherwise, new Scope(scope), out) : "end";
  }

  #passes(filter: Expression, target: Target, item: Value, scope: Scope): boolean {
    const inner = new Scope(scope);
    this.#assign(target, item, inner);
    return isTrue(this.#evaluator.evaluate(filter, inner));
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if (target.kind === "name") scope.set(target.name, value);
    else if (target.kind === "namespace") {
      const namespace = scope.get(target.name);
      if (!(namespace instanceof Namespace)) throw new TemplateError("cannot assign attribute on non-namespace object");
      namespace.set(target.attribute, value);
    } else {
      const items = itemsOf(this.#run, value);
      if (items.length !== target.items.length) {
        throw new TemplateError(`cannot unpack ${items.length} values into ${target.items.length} names`);
      }
      for (const [index, each] of target.items.entries()) this.#assign(each, items[index]!, scope);
    }
  }

  #filtered(text: Text, filters: readonly (Expression & { kind: "filter" })[], scope: Scope): Value {
    let value: Value = text;
    for (const { name, given } of filters) {
      value = this.#evaluator.filter(name, value, this.#evaluator.arguments(given, scope));
    }
    return value;
  }

  #callBlock({ call, macro }: Statement & { kind: "call-block" }, scope: Scope, out: TextBuilder): void {
    if (call.kind !== "call") throw new Error("Bug: the parser lets only calls into a call block");
    const callee = this.#evaluator.evaluate(call.of, scope);
    const { named, ...rest } = this.#evaluator.arguments(call.given, scope);
    const caller = this.#macro("caller", macro, scope);
    const given = { ...rest, named: new Map([...named, ["caller", caller]]) };
    this.#write(toText(this.#run, this.#evaluator.call(callee, given)), out);
  }

  #macro(name: string, macro: Macro, around: Scope): Callable {
    const call = (given: Arguments) =>
      this.#run.deeper(() => this.#captured(macro.body, this.#bind(name, macro, given, around)));
    const properties = new Map<string, Value>([
      ["name", new Text(name)],
      ["arguments", new Tuple(macro.parameters.map((parameter) => new Text(parameter.name)))],
      ["catch_kwargs", macro.uses.has("kwargs")],
      ["catch_varargs", macro.uses.has("varargs")],
      ["caller", macro.uses.has("caller")],
    ]);
    return new Callable(name, call, properties);
  }

  #bind(name: string, macro: Macro, given: Arguments, around: Scope): Scope {
    const scope = new Scope(around);
    const { parameters, uses } = macro;
    const named = new Map(given.named);
    for (const [index, parameter] of parameters.entries()) {
      const value = index < given.positional.length ? given.positional[index] : named.get(parameter.name);
      if (index >= given.positional.length) named.delete(parameter.name);
      scope.set(
        parameter.name,
        orElse(value, () => this.#missing(parameter, scope)),
      );
    }
    const takesCaller = uses.has("caller") && !parameters.some((parameter) => parameter.name === "caller");
    if (takesCaller) {
      scope.set(
        "caller",
        orElse(named.get("caller"), () => new Undefined("No caller defined")),
      );
      named.delete("caller");
    }
    if (uses.has("kwargs")) scope.set("kwargs", Dict.of(namedEntries({ ...given, named })));
    else if (named.size > 0)
      throw new TemplateError(`macro '${name}' takes no keyword argument '${[...named.keys()][0]}'`);
    const more = given.positional.slice(parameters.length);
    if (uses.has("varargs")) scope.set("varargs", new Tuple(more));
    else if (more.length > 0) {
      throw new TemplateError(`macro '${name}' takes not more than ${parameters.length} argument(s)`);
    }
    return scope;
  }

  #missing(parameter: Macro["parameters"][number], scope: Scope): Value {
    if (parameter.default !== undefined) return this.#evaluator.evaluate(parameter.default, scope);
    return new Undefined(`parameter '${parameter.name}' was not provided`);
  }
}
