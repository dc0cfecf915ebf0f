/** From tokens to expressions: Jinja2's grammar, with its precedences. */
import type { Token } from "./lexer.ts";
import type { BinaryOperator, CallArguments, Comparison, Expression } from "./syntax.ts";
import { TemplateError } from "./template-error.ts";
import { emptyText, Text } from "./text.ts";
import { Float, type Value } from "./values.ts";

/** Parts inside each other; every reader of the tree goes as deep. */
const deepest = 200;

const comparisons: ReadonlySet<string> = new Set(["==", "!=", "<", "<=", ">", ">="]);
const constants: ReadonlyMap<string, Value> = new Map<string, Value>([
  ["true", true],
  ["True", true],
  ["false", false],
  ["False", false],
  ["none", null],
  ["None", null],
]);

export const noArguments: CallArguments = {
  positional: [],
  named: [],
  morePositional: undefined,
  moreNamed: undefined,
};

export class ExpressionParser {
  readonly #tokens: readonly Token[];
  #at = 0;
  #depth = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  get token(): Token {
    return this.#tokens[this.#at]!; // the last one is "end", and nobody goes past it
  }

  get line(): number {
    return this.token.line;
  }

  next(): Token {
    const { token } = this;
    if (token.kind !== "end") this.#at += 1;
    return token;
  }

  isOperator(text: string, ahead = 0): boolean {
    const token = this.#tokens[this.#at + ahead];
    return token?.kind === "operator" && token.text === text;
  }

  isName(text?: string, ahead = 0): boolean {
    const token = this.#tokens[this.#at + ahead];
    return token?.kind === "name" && (text === undefined || token.text === text);
  }

  skipOperator(text: string): boolean {
    if (!this.isOperator(text)) return false;
    this.next();
    return true;
  }

  skipName(text: string): boolean {
    if (!this.isName(text)) return false;
    this.next();
    return true;
  }

  expectOperator(text: string): void {
    if (!this.skipOperator(text)) this.fail(`expected "${text}"`);
  }

  expectName(): string {
    const token = this.next();
    return token.kind === "name" ? token.text : this.fail("expected a name", token);
  }

  fail(message: string, at: Token = this.token): never {
    const met = "text" in at ? `"${at.text.slice(0, 40)}"` : "value" in at ? `${at.value}` : `"${at.kind}"`;
    throw new TemplateError(`${message}, met ${at.kind === "end" ? "the end" : met}`, at.line);
  }

  nested<T>(body: () => T): T {
    this.#depth += 1;
    if (this.#depth > deepest) this.fail(`more than ${deepest} levels of nesting`);
    const result = body();
    this.#depth -= 1;
    return result;
  }

  parseExpression(options: { conditions: boolean } = { conditions: true }): Expression {
    return this.nested(() => (options.conditions ? this.#condition() : this.#or()));
  }

  #condition(): Expression {
    let value = this.#or();
    while (this.isName("if")) {
      const { line } = this.next();
      const condition = this.#or();
      const otherwise = this.skipName("else") ? this.nested(() => this.#condition()) : undefined;
      value = { kind: "if", condition, value, otherwise, line };
    }
    return value;
  }

  #or(): Expression {
    let left = this.#and();
    while (this.isName("or")) left = { kind: "or", line: this.next().line, left, right: this.#and() };
    return left;
  }

  #and(): Expression {
    let left = this.#not();
    while (this.isName("and")) left = { kind: "and", line: this.next().line, left, right: this.#not() };
    return left;
  }

  #not(): Expression {
    if (!this.isName("not")) return this.#comparison();
    const { line } = this.next();
    return { kind: "not", of: this.nested(() => this.#not()), line };
  }

  #comparison(): Expression {
    const { line } = this;
    const first = this.#sum();
    const rest: [Comparison, Expression][] = [];
    for (;;) {
      const { token } = this;
      if (token.kind === "operator" && comparisons.has(token.text)) {
        this.next();
        rest.push([token.text as Comparison, this.#sum()]); // one of the set
      } else if (this.skipName("in")) rest.push(["in", this.#sum()]);
      else if (this.isName("not") && this.isName("in", 1)) {
        this.next();
        this.next();
        rest.push(["not in", this.#sum()]);
      } else return rest.length === 0 ? first : { kind: "compare", first, rest, line };
    }
  }

  #sum(): Expression {
    return this.#chain(["+", "-"], () => this.#joined());
  }

  #joined(): Expression {
    const { line } = this;
    const parts = [this.#product()];
    while (this.skipOperator("~")) parts.push(this.#product());
    return parts.length === 1 ? parts[0]! : { kind: "join", parts, line };
  }

  #product(): Expression {
    return this.#chain(["*", "/", "//", "%"], () => this.#power());
  }

  #power(): Expression {
    return this.#chain(["**"], () => this.#unary());
  }

  #chain(operators: readonly BinaryOperator[], operand: () => Expression): Expression {
    let left = operand();
    for (;;) {
      const operator = operators.find((each) => this.isOperator(each));
      if (operator === undefined) return left;
      const { line } = this.next();
      left = { kind: "binary", operator, left, right: operand(), line };
    }
  }

  #unary(withFilters = true): Expression {
    const { line } = this;
    let value: Expression;
    if (this.skipOperator("-")) value = { kind: "negative", of: this.nested(() => this.#unary(false)), line };
    else if (this.skipOperator("+")) value = { kind: "positive", of: this.nested(() => this.#unary(false)), line };
    else value = this.#primary();
    value = this.#postfix(value);
    return withFilters ? this.#filters(value) : value;
  }

  #primary(): Expression {
    const token = this.next();
    const { line } = token;
    switch (token.kind) {
      case "name": {
        const value = constants.get(token.text);
        return value === undefined ? { kind: "name", name: token.text, line } : { kind: "constant", value, line };
      }
      case "string": {
        let { text } = token;
        while (this.token.kind === "string") text += (this.next() as { text: string }).text; // looked at above
        return { kind: "constant", value: text === "" ? emptyText : new Text(text), line };
      }
      case "integer":
        return { kind: "constant", value: token.value, line };
      case "float":
        return { kind: "constant", value: new Float(token.value), line };
      case "operator":
        if (token.text === "(") {
          const value = this.nested(() => this.parseTuple({ inParentheses: true }));
          this.expectOperator(")");
          return value;
        }
        if (token.text === "[") return this.nested(() => this.#list(line));
        if (token.text === "{") return this.nested(() => this.#dict(line));
        return this.fail("expected a value", token);
      default:
        return this.fail("expected a value", token);
    }
  }

  #list(line: number): Expression {
    const items: Expression[] = [];
    while (!this.isOperator("]")) {
      if (items.length > 0) this.expectOperator(",");
      if (this.isOperator("]")) break;
      items.push(this.parseExpression());
    }
    this.expectOperator("]");
    return { kind: "list", items, line };
  }

  #dict(line: number): Expression {
    const entries: [Expression, Expression][] = [];
    while (!this.isOperator("}")) {
      if (entries.length > 0) this.expectOperator(",");
      if (this.isOperator("}")) break;
      const key = this.parseExpression();
      this.expectOperator(":");
      entries.push([key, this.parseExpression()]);
    }
    this.expectOperator("}");
    return { kind: "dict", entries, line };
  }

  /** Values between commas; one alone without a comma is itself. `stopAt`: a name that ends them. */
  parseTuple(options: { inParentheses?: boolean; conditions?: boolean; stopAt?: string } = {}): Expression {
    const { inParentheses = false, conditions = true, stopAt } = options;
    const { line } = this;
    const items: Expression[] = [];
    let isTuple = false;
    for (;;) {
      if (items.length > 0) {
        if (!this.isOperator(",")) break;
        this.next();
        isTuple = true;
      }
      const { kind } = this.token;
      if (kind === "%}" || kind === "}}" || this.isOperator(")") || (stopAt !== undefined && this.isName(stopAt)))
        break;
      items.push(this.parseExpression({ conditions }));
    }
    if (!isTuple && items.length === 1) return items[0]!;
    if (items.length === 0 && !inParentheses) this.fail("expected a value");
    return { kind: "tuple", items, line };
  }

  #postfix(start: Expression): Expression {
    let value = start;
    for (;;) {
      const { line } = this;
      if (this.skipOperator(".")) value = this.#dotted(value, line);
      else if (this.skipOperator("[")) value = this.#subscript(value, line);
      else if (this.isOperator("(")) value = { kind: "call", of: value, given: this.parseArguments(), line };
      else return value;
    }
  }

  #dotted(of: Expression, line: number): Expression {
    const token = this.next();
    if (token.kind === "name") return { kind: "attribute", of, name: token.text, line };
    if (token.kind === "integer") {
      return { kind: "item", of, key: { kind: "constant", value: token.value, line }, line };
    }
    return this.fail("expected a name", token);
  }

  #subscript(of: Expression, line: number): Expression {
    const keys: Expression[] = [];
    while (!this.isOperator("]")) {
      if (keys.length > 0) this.expectOperator(",");
      keys.push(this.#subscripted());
    }
    this.expectOperator("]");
    if (keys.length === 0) this.fail("expected an index");
    return { kind: "item", of, key: keys.length === 1 ? keys[0]! : { kind: "tuple", items: keys, line }, line };
  }

  #subscripted(): Expression {
    const { line } = this;
    const part = () =>
      this.isOperator(":") || this.isOperator("]") || this.isOperator(",") ? undefined : this.parseExpression();
    const from = part();
    if (!this.skipOperator(":")) return from ?? this.fail("expected an index");
    const to = part();
    const step = this.skipOperator(":") ? part() : undefined;
    return { kind: "slice", from, to, step, line };
  }

  #filters(start: Expression): Expression {
    let value = start;
    for (;;) {
      const { line } = this;
      if (this.skipOperator("|")) value = this.parseFilter(value);
      else if (this.isName("is")) value = this.#test(value);
      else if (this.isOperator("(")) value = { kind: "call", of: value, given: this.parseArguments(), line };
      else return value;
    }
  }

  /** What follows a bar. */
  parseFilter(of: Expression | undefined): Expression & { kind: "filter" } {
    const { line } = this;
    const name = this.#dottedName();
    return { kind: "filter", of, name, given: this.isOperator("(") ? this.parseArguments() : noArguments, line };
  }

  #test(of: Expression): Expression {
    const { line } = this.next();
    const isNegated = this.skipName("not");
    const name = this.#dottedName();
    let given = noArguments;
    const { kind } = this.token;
    const opens = this.isOperator("[") || this.isOperator("{");
    if (this.isOperator("(")) given = this.parseArguments();
    else if (kind === "name" || kind === "string" || kind === "integer" || kind === "float" || opens) {
      if (!["else", "or", "and"].some((word) => this.isName(word))) {
        if (this.isName("is")) this.fail('tests cannot be chained with "is"');
        given = { ...noArguments, positional: [this.#postfix(this.#primary())] };
      }
    }
    const test: Expression = { kind: "test", of, name, given, line };
    return isNegated ? { kind: "not", of: test, line } : test;
  }

  #dottedName(): string {
    let name = this.expectName();
    while (this.skipOperator(".")) name += `.${this.expectName()}`;
    return name;
  }

  parseArguments(): CallArguments {
    return this.nested(() => this.#arguments());
  }

  #arguments(): CallArguments {
    this.expectOperator("(");
    const positional: Expression[] = [];
    const named: [string, Expression][] = [];
    let morePositional: Expression | undefined;
    let moreNamed: Expression | undefined;
    for (let isFirst = true; !this.isOperator(")"); isFirst = false) {
      if (!isFirst) {
        this.expectOperator(",");
        if (this.isOperator(")")) break;
      }
      if (this.skipOperator("*")) morePositional = this.parseExpression();
      else if (this.skipOperator("**")) moreNamed = this.parseExpression();
      else if (this.isName() && this.isOperator("=", 1)) {
        const name = this.expectName();
        this.next();
        named.push([name, this.parseExpression()]);
      } else if (named.length > 0 || moreNamed !== undefined) this.fail("arguments without a name come first");
      else positional.push(this.parseExpression());
    }
    this.expectOperator(")");
    return { positional, named, morePositional, moreNamed };
  }
}
