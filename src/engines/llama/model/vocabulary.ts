/**
 * A model's vocabulary: from text to tokens and back.
 */
import { RepriseError } from "../../../errors.ts";
import type { LlamaFunctions, VocabularyPointer } from "../../../ffi/llama.ts";
import type { KnownTokens } from "./known-tokens.ts";
import { longFragment, type PromptVocabulary, tokenizePrompt } from "./prompt-tokens.ts";
import { beginsWithOwn, type PromptText } from "../../../chat/prompt-text.ts";

/** Bits of llama.cpp's `llama_token_attr`. */
const tokenAttribute = {
  unknown: 1,
  control: 1 << 3,
  userDefined: 1 << 4,
  stripsBefore: 1 << 7,
  stripsBehind: 1 << 8,
} as const;
/** Tokens whose texts llama.cpp cuts out of a text before it tokenizes the rest. */
const cutOut = tokenAttribute.unknown | tokenAttribute.control | tokenAttribute.userDefined;

export class Vocabulary {
  readonly pointer: VocabularyPointer;
  readonly size: number;
  readonly #functions: LlamaFunctions;
  #promptVocabulary: PromptVocabulary | undefined;

  constructor(functions: LlamaFunctions, pointer: VocabularyPointer) {
    this.#functions = functions;
    this.pointer = pointer;
    this.size = functions.vocabularySize(pointer);
  }

  /** Token ids of a text. `special`: read special tokens by name. `begin`: the model's BOS first, if it has the habit. */
  tokenize(text: string, options: { special: boolean; begin: boolean }): Uint32Array {
    const bytes = Buffer.from(text, "utf8");
    // One token a byte and a few for the ends is the most there can be; -n tells how many there are when that is wrong.
    let tokens = new Int32Array(bytes.length + 8);
    const run = () =>
      this.#functions.tokenize(this.pointer, bytes, bytes.length, tokens, tokens.length, false, options.special);
    let count = run();
    if (count < 0) {
      tokens = new Int32Array(-count);
      count = run();
    }
    if (count < 0) throw new RepriseError("BAD_REQUEST", "The text cannot be tokenized", { field: "prompt" });
    const ids = new Uint32Array(tokens.buffer, 0, count);
    // Not left to llama.cpp, which would put an end token behind a prompt as well where a model has that habit.
    return options.begin && this.addsBegin ? withFirst(this.#beginToken, ids) : ids;
  }

  /**
   * Token ids of a prompt, with the model's BOS before them if it has the habit and the template did not write it.
   *
   * @param known where the tokens of long texts are looked up, and remembered, under this salt.
   */
  tokenizePrompt(prompt: PromptText, known?: { readonly tokens: KnownTokens; readonly salt: string }): Uint32Array {
    const plain = this.promptVocabulary;
    const tokenize: PromptVocabulary["tokenize"] = (text, kind) => {
      const now = () => plain.tokenize(text, kind);
      return known === undefined || text.length < longFragment ? now() : known.tokens.of(known.salt, text, kind, now);
    };
    const tokens = tokenizePrompt(prompt, { ...plain, tokenize });
    const begins = this.addsBegin && !beginsWithOwn(prompt, this.specialText("begin"));
    return begins ? withFirst(this.#beginToken, tokens) : tokens;
  }

  /** The text of tokens, special ones by their names. */
  detokenize(tokens: Uint32Array): string {
    const ids = new Int32Array(tokens);
    let bytes = new Uint8Array(8 * tokens.length + 64);
    const run = () => this.#functions.detokenize(this.pointer, ids, ids.length, bytes, bytes.length, false, true);
    let count = run();
    if (count < 0) {
      bytes = new Uint8Array(-count);
      count = run();
    }
    return Buffer.from(bytes.buffer, 0, Math.max(0, count)).toString("utf8");
  }

  /** The bytes of each token, special ones by their names. */
  namedPieces(tokens: Uint32Array): Uint8Array[] {
    return Array.from(tokens, (token) => this.piece(token, { special: true }).slice());
  }

  /** A special token by its name, "" when the model has none. */
  specialText(which: "begin" | "end"): string {
    const token = which === "begin" ? this.#beginToken : this.#functions.endToken(this.pointer);
    return token < 0 ? "" : Buffer.from(this.piece(token, { special: true })).toString("utf8");
  }

  /** Does the model want its BOS token at the start of a text? */
  get addsBegin(): boolean {
    return this.#beginToken >= 0 && this.#functions.addsBegin(this.pointer);
  }

  /** What a prompt's text is tokenized with; made on the first call, since all of the vocabulary is asked. */
  get promptVocabulary(): PromptVocabulary {
    this.#promptVocabulary ??= this.#describeVocabulary();
    return this.#promptVocabulary;
  }

  get #beginToken(): number {
    return this.#functions.beginToken(this.pointer);
  }

  /** Bytes of the longest token: a text of more than so many times N bytes has more than N tokens. */
  longestPieceBytes(): number {
    let longest = 1;
    const bytes = new Uint8Array(64);
    for (let token = 0; token < this.size; token += 1) {
      const count = this.#functions.tokenPiece(this.pointer, token, bytes, bytes.length, 0, true);
      longest = Math.max(longest, Math.abs(count)); // negative: it needs more bytes than were given
    }
    return longest;
  }

  /** The bytes of a token. `special`: special tokens have those of their names, else none. */
  piece(token: number, options: { special: boolean }): Uint8Array {
    let bytes = new Uint8Array(64);
    const run = () => this.#functions.tokenPiece(this.pointer, token, bytes, bytes.length, 0, options.special);
    let count = run();
    if (count < 0) {
      bytes = new Uint8Array(-count);
      count = run();
    }
    return bytes.subarray(0, Math.max(0, count));
  }

  #describeVocabulary(): PromptVocabulary {
    const controlTexts: string[] = [];
    const otherTexts: string[] = [];
    const stripsBefore = new Set<string>();
    const stripsBehind = new Set<string>();
    for (let token = 0; token < this.size; token += 1) {
      const attributes = this.#functions.tokenAttributes(this.pointer, token);
      if ((attributes & cutOut) === 0) continue;
      const text = Buffer.from(this.piece(token, { special: true })).toString("utf8");
      if (text === "") continue;
      if ((attributes & cutOut) === tokenAttribute.userDefined) {
        otherTexts.push(text);
        continue;
      }
      controlTexts.push(text);
      if ((attributes & tokenAttribute.stripsBefore) !== 0) stripsBefore.add(text);
      if ((attributes & tokenAttribute.stripsBehind) !== 0) stripsBehind.add(text);
    }
    const tokenize = (text: string, { special }: { special: boolean }) =>
      this.tokenize(text, { special, begin: false });
    // A token of white space is cut out before a control token could swallow it.
    const swallows = stripsBefore.size + stripsBehind.size > 0 && otherTexts.some((text) => /^\s|\s$/.test(text));
    const cutsAtControlsFirst = !swallows && !mayOverlap(controlTexts, otherTexts);
    return { controlTexts, stripsBefore, stripsBehind, cutsAtControlsFirst, tokenize };
  }
}

/** Whether some text could hold one of each that have characters in common. */
export function mayOverlap(texts: readonly string[], others: readonly string[]): boolean {
  return reaches(texts, others) || reaches(others, texts);
}

/** Whether one of `texts` holds one of `others`, or ends as one of them begins. */
function reaches(texts: readonly string[], others: readonly string[]): boolean {
  const whole = new Set(others);
  const beginnings = new Set<string>();
  for (const text of others) for (let end = 1; end <= text.length; end += 1) beginnings.add(text.slice(0, end));
  return texts.some((text) => {
    for (let from = 0; from < text.length; from += 1) {
      for (let to = from + 1; to <= text.length && beginnings.has(text.slice(from, to)); to += 1) {
        if (to === text.length || whole.has(text.slice(from, to))) return true;
      }
    }
    return false;
  });
}

function withFirst(token: number, tokens: Uint32Array): Uint32Array {
  const all = new Uint32Array(tokens.length + 1);
  all[0] = token;
  all.set(tokens, 1);
  return all;
}
