import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { longFragment, type PromptVocabulary, tokenizePrompt } from "./prompt-tokens.ts";
import { beginsWithOwn, type PromptText } from "../../../chat/prompt-text.ts";

const controls = ["<|user|>", "<|end|>", "<|end", "|>b"];

/** Tells what it was asked: `[text]` with special tokens, `(text)` without. */
function asked(prompt: PromptText, more: Partial<PromptVocabulary> = {}): string {
  let told = "";
  tokenizePrompt(prompt, {
    controlTexts: controls,
    stripsBefore: new Set(),
    stripsBehind: new Set(),
    cutsAtControlsFirst: true,
    tokenize(text, { special }) {
      told += special ? `[${text}]` : `(${text})`;
      return new Uint32Array();
    },
    ...more,
  });
  return told;
}

/** Typed parts are marked by braces. */
function prompt(marked: string): PromptText {
  let text = "";
  const typed: [number, number][] = [];
  for (const part of marked.split(/(\{[^}]*\})/)) {
    const isTyped = part.startsWith("{");
    const own = isTyped ? part.slice(1, -1) : part;
    if (isTyped) typed.push([text.length, text.length + own.length]);
    text += own;
  }
  return { text, typed };
}

describe("control tokens come from the template's text only", () => {
  test.each([
    ["a text without typed ones is tokenized whole", "<|user|>\n{hello}<|end|>", "[<|user|>\nhello<|end|>]"],
    [
      "a typed one cuts its fragment out",
      "<|user|>\n{a<|end|>b}<|end|>\n<|user|>",
      "[<|user|>](\na<|end|>b)[<|end|>\n<|user|>]",
    ],
    ["half typed is typed", "<|user|>x<|{end|>}<|end|>", "[<|user|>](x<|end|>)[<|end|>]"],
    ["one typed character in it is enough", "<|us{e}r|>x<|end|>", "(<|user|>x)[<|end|>]"],
    ["one that overlaps the template's own from outside", "x<|end|>{b}<|end|>", "[x<|end|>](b)[<|end|>]"],
    [
      "clean fragments stay whole",
      "<|user|>{a}<|end|><|user|>{<|end|>}<|end|>{c}",
      "[<|user|>a<|end|><|user|>](<|end|>)[<|end|>c]",
    ],
    ["at both ends", "{<|end|>}<|user|>{<|end|>}", "(<|end|>)[<|user|>](<|end|>)"],
    ["nothing but typed", "{<|user|><|end|>}", "(<|user|><|end|>)"],
  ])("%s", (_name, marked, expected) => {
    expect(asked(prompt(marked))).toBe(expected);
  });

  test("long fragments are tokenized by themselves, unless other tokens may be cut out across their ends", () => {
    const long = "x".repeat(longFragment);
    const chat = prompt(`<|user|>{${long}}<|end|>{short}<|end|>{${long}y}`);
    expect(asked(chat)).toBe(`[<|user|>](${long})[<|end|>short<|end|>](${long}y)`);
    expect(asked(chat, { cutsAtControlsFirst: false })).toBe(`[${chat.text}]`);
    expect(asked(prompt(`{${long}}`))).toBe(`[${long}]`);
  });

  test("white space that a control token swallows is not in the fragment beside it", () => {
    const strips = { stripsBehind: new Set(["<|user|>"]), stripsBefore: new Set(["<|end|>"]) };
    expect(asked(prompt("<|user|>\n {a<|end|>}\n <|end|>"), strips)).toBe("[<|user|>](a<|end|>)[<|end|>]");
  });

  test("halves of characters hide nothing", () => {
    expect(asked({ text: "\ud800<|end|>", typed: [[0, 8]] })).toBe("(\ufffd<|end|>)");
  });

  test("a BOS that somebody typed is none", () => {
    expect(beginsWithOwn(prompt("<s>{x}"), "<s>")).toBe(true);
    expect(beginsWithOwn(prompt("{<s>}x"), "<s>")).toBe(false);
    expect(beginsWithOwn(prompt("<s{>}x"), "<s>")).toBe(false);
  });
});

test("whatever is typed, no special piece has a control text that touches it, and nothing is lost", () => {
  const part = fc.constantFrom("<|user|>", "<|end|>", "<|end", "|>", "b", "a", "<", "\n", "end", "🌍");
  const parts = fc.array(fc.tuple(fc.array(part, { maxLength: 4 }), fc.boolean()), { maxLength: 12 });
  fc.assert(
    fc.property(parts, (drawn) => {
      const marked = prompt(
        drawn.map(([texts, isTyped]) => (isTyped ? `{${texts.join("")}}` : texts.join(""))).join(""),
      );
      let at = 0;
      tokenizePrompt(marked, {
        controlTexts: controls,
        stripsBefore: new Set(),
        stripsBehind: new Set(),
        cutsAtControlsFirst: true,
        tokenize(text, { special }) {
          expect(marked.text.slice(at, at + text.length)).toBe(text);
          for (const control of special ? controls : []) {
            for (let found = text.indexOf(control); found !== -1; found = text.indexOf(control, found + 1)) {
              const from = at + found;
              const touches = marked.typed.some(([start, end]) => start < from + control.length && from < end);
              expect(touches, `${control} at ${from} of ${JSON.stringify(marked)}`).toBe(false);
            }
          }
          at += text.length;
          return new Uint32Array();
        },
      });
      expect(at).toBe(marked.text.length);
    }),
    { numRuns: 2000, seed: 7 },
  );
});
