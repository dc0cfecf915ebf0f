/** From a template's source to its statements. */
import { ExpressionParser } from "./expression-parser.ts";
import { tokenize } from "./lexer.ts";
import { namesIn } from "./names.ts";
import type { Body, Expression, Macro, Statement, Target } from "./syntax.ts";

type Filters = (Expression & { kind: "filter" })[];

/** Tags that need other files, or that chat templates are rendered without. */
const refused: readonly string[] = ["extends", "include", "import", "from", "autoescape", "trans", "do", "debug"];
/** What a macro takes only when it speaks of it. */
const implied: readonly string[] = ["caller", "kwargs", "varargs"];

/** @throws TemplateError with the line. */
export function parse(source: string): Body {
  return new Parser(source).run();
}

class Parser {
  readonly #in: ExpressionParser;
  /** Loops around the tag that is being read, back to the nearest macro. */
  #loops = 0;

  constructor(source: string) {
    this.#in = new ExpressionParser(tokenize(source));
  }

  run(): Body {
    const { body, end } = this.#body([]);
    if (end !== undefined) this.#in.fail("nothing is open here");
    return body;
  }

  /** Statements up to a tag with one of these names, whose name is read. */
  #body(ends: readonly string[]): { body: Body; end: string | undefined } {
    return this.#in.nested(() => {
      const body: Statement[] = [];
      for (;;) {
        const token = this.#in.next();
        if (token.kind === "end") {
          if (ends.length > 0) this.#in.fail(`expected a tag "${ends.join('" or "')}"`, token);
          return { body, end: undefined };
        }
        if (token.kind === "data") body.push({ kind: "text", text: token.text, line: token.line });
        else if (token.kind === "{{") {
          body.push({ kind: "output", value: this.#in.parseTuple(), line: token.line });
          if (this.#in.token.kind !== "}}") this.#in.fail('expected "}}"');
          this.#in.next();
        } else if (token.kind === "{%") {
          const name = this.#in.expectName();
          if (ends.includes(name)) return { body, end: name };
          this.#statement(name, token.line, body);
        } else this.#in.fail("not expected here", token);
      }
    });
  }

  /** A body to its end tag, all of it. */
  #bodyTo(end: string): Body {
    this.#closeTag();
    const { body } = this.#body([end]);
    this.#closeTag();
    return body;
  }

  #closeTag(): void {
    this.#in.skipOperator(":");
    if (this.#in.token.kind !== "%}") this.#in.fail('expected "%}"');
    this.#in.next();
  }

  #statement(name: string, line: number, into: Statement[]): void {
    switch (name) {
      case "if":
        into.push(this.#if(line));
        return;
      case "for":
        into.push(this.#for(line));
        return;
      case "set":
        into.push(this.#set(line));
        return;
      case "macro": {
        const own = this.#in.expectName();
        into.push({ kind: "macro", name: own, macro: this.#macro("endmacro", true), line });
        return;
      }
      case "call": {
        const parameters = this.#in.isOperator("(") ? this.#parameters() : [];
        const call = this.#in.parseExpression();
        if (call.kind !== "call") this.#in.fail("expected a call");
        into.push({ kind: "call-block", call, macro: this.#macroBody(parameters, "endcall"), line });
        return;
      }
      case "filter": {
        const filters = this.#filters();
        into.push({ kind: "filter-block", filters, body: this.#bodyTo("endfilter"), line });
        return;
      }
      case "with":
        into.push(this.#with(line));
        return;
      case "generation":
        into.push({ kind: "scope", body: this.#apart(() => this.#bodyTo("endgeneration")), line });
        return;
      case "block":
        into.push(this.#block(line));
        return;
      case "print": {
        const value = this.#in.parseTuple();
        for (const each of value.kind === "tuple" ? value.items : [value])
          into.push({ kind: "output", value: each, line });
        this.#closeTag();
        return;
      }
      case "break":
      case "continue":
        if (this.#loops === 0) this.#in.fail(`"${name}" outside of a loop`);
        into.push({ kind: name, line });
        this.#closeTag();
        return;
      default:
        this.#in.fail(refused.includes(name) ? `the tag "${name}" is not supported` : `there is no tag "${name}"`);
    }
  }

  #if(line: number): Statement {
    const branches: { condition: Expression; body: Body }[] = [];
    for (;;) {
      const condition = this.#in.parseTuple({ conditions: false });
      this.#closeTag();
      const { body, end } = this.#body(["elif", "else", "endif"]);
      branches.push({ condition, body });
      if (end === "elif") continue;
      const otherwise = end === "else" ? this.#bodyTo("endif") : [];
      if (end !== "else") this.#closeTag();
      return { kind: "if", branches, otherwise, line };
    }
  }

  #for(line: number): Statement {
    const target = this.#target({ stopAt: "in" });
    if (!this.#in.skipName("in")) this.#in.fail('expected "in"');
    const over = this.#in.parseTuple({ conditions: false, stopAt: "recursive" });
    const filter = this.#in.skipName("if") ? this.#in.parseExpression() : undefined;
    const isRecursive = this.#in.skipName("recursive");
    this.#closeTag();
    this.#loops += 1;
    const { body, end } = this.#body(["endfor", "else"]);
    this.#loops -= 1;
    const otherwise = end === "else" ? this.#bodyTo("endfor") : [];
    if (end !== "else") this.#closeTag();
    return { kind: "for", target, over, filter, isRecursive, body, otherwise, line };
  }

  #set(line: number): Statement {
    const target = this.#target({ withAttributes: true });
    if (this.#in.skipOperator("=")) {
      const value = this.#in.parseTuple();
      this.#closeTag();
      return { kind: "set", target, value, line };
    }
    const filters = this.#in.skipOperator("|") ? this.#filters() : [];
    return { kind: "set-block", target, filters, body: this.#bodyTo("endset"), line };
  }

  #filters(): Filters {
    const filters: Filters = [this.#in.parseFilter(undefined)];
    while (this.#in.skipOperator("|")) filters.push(this.#in.parseFilter(undefined));
    return filters;
  }

  #with(line: number): Statement {
    const targets: Target[] = [];
    const values: Expression[] = [];
    while (this.#in.token.kind !== "%}") {
      if (targets.length > 0) this.#in.expectOperator(",");
      targets.push(this.#targetPart({}));
      this.#in.expectOperator("=");
      values.push(this.#in.parseExpression());
    }
    return { kind: "with", targets, values, body: this.#bodyTo("endwith"), line };
  }

  #block(line: number): Statement {
    const name = this.#in.expectName();
    this.#in.skipName("scoped");
    this.#in.skipName("required");
    this.#closeTag();
    const { body } = this.#apart(() => this.#body(["endblock"]));
    this.#in.skipName(name);
    this.#closeTag();
    return { kind: "block", body, line };
  }

  #macro(end: string, needsParentheses: boolean): Macro {
    if (needsParentheses && !this.#in.isOperator("(")) this.#in.fail('expected "("');
    return this.#macroBody(this.#parameters(), end);
  }

  #macroBody(parameters: Macro["parameters"], end: string): Macro {
    const body = this.#apart(() => this.#bodyTo(end));
    const names = namesIn(body);
    return { parameters, body, uses: new Set(implied.filter((name) => names.has(name))) };
  }

  /** Loops outside are none of this body's. */
  #apart<T>(read: () => T): T {
    const loops = this.#loops;
    this.#loops = 0;
    const result = read();
    this.#loops = loops;
    return result;
  }

  #parameters(): Macro["parameters"] {
    const parameters: { name: string; default: Expression | undefined }[] = [];
    this.#in.expectOperator("(");
    while (!this.#in.isOperator(")")) {
      if (parameters.length > 0) this.#in.expectOperator(",");
      const name = this.#in.expectName();
      const value = this.#in.skipOperator("=") ? this.#in.parseExpression() : undefined;
      if (value === undefined && parameters.at(-1)?.default !== undefined) {
        this.#in.fail("a parameter without a default follows one with a default");
      }
      parameters.push({ name, default: value });
    }
    this.#in.expectOperator(")");
    return parameters;
  }

  #target(options: { stopAt?: string; withAttributes?: boolean }): Target {
    const items = [this.#targetPart(options)];
    let isTuple = false;
    while (this.#in.skipOperator(",")) {
      isTuple = true;
      if (this.#in.token.kind !== "name" && !this.#in.isOperator("(")) break;
      if (options.stopAt !== undefined && this.#in.isName(options.stopAt)) break;
      items.push(this.#targetPart(options));
    }
    return isTuple ? { kind: "tuple", items } : items[0]!;
  }

  #targetPart(options: { stopAt?: string; withAttributes?: boolean }): Target {
    if (this.#in.skipOperator("(")) {
      const target = this.#in.nested(() => this.#target(options));
      this.#in.expectOperator(")");
      return target;
    }
    const name = this.#in.expectName();
    if (["true", "false", "none", "True", "False", "None"].includes(name)) this.#in.fail(`cannot assign to "${name}"`);
    if (options.withAttributes !== true || !this.#in.skipOperator(".")) return { kind: "name", name };
    return { kind: "namespace", name, attribute: this.#in.expectName() };
  }
}
