/**
 * From a template's source to tokens, with Jinja2's rules for white space as chat templates use them: `trim_blocks`, `lstrip_blocks`,
 * one line end at the end of the file dropped, every line end read as "\n".
 */
import { endWithoutSpace, whiteSpace } from "./characters.ts";
import { TemplateError } from "./template-error.ts";

export type Token = { readonly line: number } & (
  | { readonly kind: "data"; readonly text: string }
  | { readonly kind: "{%" | "%}" | "{{" | "}}" | "end" }
  | { readonly kind: "name" | "string" | "operator"; readonly text: string }
  | { readonly kind: "integer"; readonly value: number | bigint }
  | { readonly kind: "float"; readonly value: number }
);

/** Longer than any template that a model carries. */
const longestSource = 4 * 2 ** 20;

const opening = /\{[%{#]/g;
const rawOpening = new RegExp(`\\{%([-+]?)${whiteSpace}*raw${whiteSpace}*(?:-%\\}${whiteSpace}*|%\\})`, "y");
const rawEnding = new RegExp(
  `\\{%([-+]?)${whiteSpace}*endraw${whiteSpace}*(?:\\+%\\}|-%\\}${whiteSpace}*|%\\}\\n?)`,
  "g",
);
const commentEnding = new RegExp(`\\+#\\}|-#\\}${whiteSpace}*|#\\}\\n?`, "g");
const blockEnding = new RegExp(`\\+%\\}|-%\\}${whiteSpace}*|%\\}\\n?`, "y");
const outputEnding = new RegExp(`-\\}\\}${whiteSpace}*|\\}\\}`, "y");

const space = new RegExp(`${whiteSpace}+`, "y");
const float = /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[-+]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy;
const integer = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const name = /[\p{ID_Start}_][\p{ID_Continue}]*/uy;
const string = /'[^'\\]*(?:\\[^][^'\\]*)*'|"[^"\\]*(?:\\[^][^"\\]*)*"/y;
const operator = /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/y;

const closing: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };
const onlySpace = new RegExp(`^${whiteSpace}+$`);

/** @throws TemplateError */
export function tokenize(source: string): Token[] {
  if (source.length > longestSource) {
    throw new TemplateError(`the template has more than ${longestSource} characters`);
  }
  const text = source.replace(/\r\n|\r/g, "\n").replace(/\n$/, "");
  return new Lexer(text).run();
}

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  #line = 1;
  #lineAt = 0;
  /** The last tag ended with a line end, or nothing has been read yet. */
  #isLineStart = true;

  constructor(source: string) {
    this.#source = source;
  }

  run(): Token[] {
    while (this.#at < this.#source.length) this.#readTag();
    this.#tokens.push({ kind: "end", line: this.#lineOf(this.#source.length) });
    return this.#tokens;
  }

  /** The text up to the next tag, and the tag. */
  #readTag(): void {
    const source = this.#source;
    opening.lastIndex = this.#at;
    const found = opening.exec(source);
    if (found === null) {
      this.#data(source.slice(this.#at), this.#at);
      this.#at = source.length;
      return;
    }
    const from = this.#at;
    const { index } = found;
    rawOpening.lastIndex = index;
    const raw = found[0] === "{%" ? rawOpening.exec(source) : null;
    const signAt = source[index + 2];
    const sign = raw === null ? (signAt === "-" || signAt === "+" ? signAt : "") : raw[1]!;
    this.#data(this.#trimmed(source.slice(from, index), sign, found[0] !== "{{"), from);
    this.#at = index + (raw === null ? 2 + sign.length : raw[0].length);
    if (raw !== null) {
      this.#isLineStart = raw[0].endsWith("\n");
      this.#readRaw();
    } else if (found[0] === "{#") this.#readComment();
    else this.#readExpression(found[0] === "{%" ? "block" : "output", index);
  }

  /** What white space before a tag goes: all with a minus, the line's own before a block or comment without a plus. */
  #trimmed(data: string, sign: string, isBlock: boolean): string {
    if (sign === "-") return data.slice(0, endWithoutSpace(data));
    if (sign === "+" || !isBlock) return data;
    const lineStart = data.lastIndexOf("\n") + 1;
    if (lineStart === 0 && !this.#isLineStart) return data;
    return onlySpace.test(data.slice(lineStart)) ? data.slice(0, lineStart) : data;
  }

  #readComment(): void {
    commentEnding.lastIndex = this.#at;
    const end = commentEnding.exec(this.#source);
    if (end === null) this.#fail("a comment is not closed", this.#at);
    this.#passed(end[0], end.index);
  }

  #readRaw(): void {
    const from = this.#at;
    rawEnding.lastIndex = from;
    const end = rawEnding.exec(this.#source);
    if (end === null) this.#fail("a raw block is not closed", from);
    this.#data(this.#trimmed(this.#source.slice(from, end.index), end[1]!, true), from);
    this.#passed(end[0], end.index);
  }

  #passed(ending: string, index: number): void {
    this.#at = index + ending.length;
    this.#isLineStart = ending.endsWith("\n");
  }

  #readExpression(kind: "block" | "output", start: number): void {
    const source = this.#source;
    const ending = kind === "block" ? blockEnding : outputEnding;
    const open: string[] = [];
    this.#tokens.push({ kind: kind === "block" ? "{%" : "{{", line: this.#lineOf(start) });
    for (;;) {
      const at = this.#at;
      const end = open.length === 0 ? this.#match(ending) : undefined;
      if (end !== undefined) {
        this.#tokens.push({ kind: kind === "block" ? "%}" : "}}", line: this.#lineOf(at) });
        this.#isLineStart = end.endsWith("\n");
        return;
      }
      if (at >= source.length) this.#fail(`a tag is not closed`, start);
      if (this.#match(space) !== undefined) continue;
      this.#tokens.push(this.#expressionToken(at, open));
    }
  }

  #expressionToken(at: number, open: string[]): Token {
    const line = this.#lineOf(at);
    const real = this.#match(float);
    if (real !== undefined) return { kind: "float", value: Number(real.replaceAll("_", "")), line };
    const whole = this.#match(integer);
    if (whole !== undefined) return { kind: "integer", value: wholeOf(whole.replaceAll("_", "")), line };
    const word = this.#match(name);
    if (word !== undefined) return { kind: "name", text: word, line };
    const quoted = this.#match(string);
    if (quoted !== undefined) return { kind: "string", text: this.#unescape(quoted.slice(1, -1), at), line };
    const sign = this.#match(operator);
    if (sign === undefined) return this.#fail(`"${this.#source[at]}" is not expected here`, at);
    if (sign in closing) open.push(closing[sign]!);
    else if (sign === ")" || sign === "]" || sign === "}") {
      if (open.pop() !== sign) this.#fail(`"${sign}" closes nothing`, at);
    }
    return { kind: "operator", text: sign, line };
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#source)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #data(text: string, at: number): void {
    if (text !== "") this.#tokens.push({ kind: "data", text, line: this.#lineOf(at) });
  }

  /** Python's escapes. */
  #unescape(text: string, at: number): string {
    if (!text.includes("\\")) return text;
    return text.replace(
      /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3})|([^]))/g,
      (all: string, x?: string, u?: string, long?: string, octal?: string, other?: string) => {
        const code = x ?? u ?? long;
        if (code !== undefined) {
          const point = Number.parseInt(code, 16);
          return point > 0x10_ff_ff
            ? this.#fail("a string has an escape that is no character", at)
            : String.fromCodePoint(point);
        }
        if (octal !== undefined) return String.fromCodePoint(Number.parseInt(octal, 8));
        if (other === "x" || other === "u" || other === "U" || other === "N") {
          return this.#fail("a string has a broken escape", at);
        }
        return other === undefined ? all : (simpleEscapes[other] ?? all);
      },
    );
  }

  #lineOf(at: number): number {
    for (let next = this.#source.indexOf("\n", this.#lineAt); next !== -1 && next < at;) {
      this.#line += 1;
      this.#lineAt = next + 1;
      next = this.#source.indexOf("\n", this.#lineAt);
    }
    return this.#line;
  }

  #fail(message: string, at: number): never {
    throw new TemplateError(message, this.#lineOf(at));
  }
}

const simpleEscapes: Readonly<Record<string, string>> = {
  "\n": "",
  "\\": "\\",
  "'": "'",
  '"': '"',
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

function wholeOf(digits: string): number | bigint {
  const value = Number(digits);
  return Number.isSafeInteger(value) ? value : BigInt(digits);
}
