import { fileURLToPath } from "node:url";
import * as fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { textContent } from "../../../chat/content.ts";
import { loadModel } from "../../../../test/support/scheduler-rig.ts";
import { ChatTemplate } from "../../../chat/chat-template.ts";
import { KnownTokens } from "./known-tokens.ts";
import { mayOverlap, type Vocabulary } from "./vocabulary.ts";

const path = fileURLToPath(new URL("../../../../models/reprise-22m-q8_0.gguf", import.meta.url));
let vocabulary: Vocabulary;
let template: ChatTemplate;

beforeAll(() => {
  const model = loadModel(path);
  ({ vocabulary } = model);
  const chatTemplate = model.metadata.get("tokenizer.chat_template");
  template = new ChatTemplate({
    chatTemplate,
    beginText: vocabulary.specialText("begin"),
    endText: vocabulary.specialText("end"),
  });
});

/** The ids of the vocabulary's control tokens. */
function controlIds(): Set<number> {
  const ids = vocabulary.promptVocabulary.controlTexts.map((text) =>
    vocabulary.tokenize(text, { special: true, begin: false }),
  );
  return new Set(ids.flatMap((tokens) => (tokens.length === 1 ? [tokens[0]!] : [])));
}

const render = (content: string) => template.render({ messages: [{ role: "user", content: textContent(content) }] });
const countControls = (tokens: Uint32Array, ids: ReadonlySet<number>) =>
  tokens.filter((token) => ids.has(token)).length;

test("control tokens in a message stay text for the shipped model, whatever stands around them", () => {
  const ids = controlIds();
  expect(ids.size).toBeGreaterThan(3);
  const harmless = countControls(vocabulary.tokenizePrompt(render("hello")), ids);
  const piece = fc.constantFrom(
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|",
    "|>",
    "end",
    "a",
    "\n",
    " ",
    "ü",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
      const prompt = render(pieces.join(""));
      const tokens = vocabulary.tokenizePrompt(prompt);
      expect(countControls(tokens, ids)).toBe(harmless);
      expect(vocabulary.detokenize(tokens)).toBe(prompt.text);
    }),
    { numRuns: 500, seed: 7 },
  );
});

test("a text without control tokens has the tokens of the whole prompt", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", maxLength: 60 }), (content) => {
      fc.pre(!content.includes("<|"));
      const prompt = render(content);
      expect(vocabulary.tokenizePrompt(prompt)).toEqual(
        vocabulary.tokenize(prompt.text, { special: true, begin: true }),
      );
    }),
    { numRuns: 500, seed: 7 },
  );
});

test("long messages, tokenized by themselves and known from before, have the tokens of the whole prompt", () => {
  const known = { tokens: new KnownTokens(), salt: "" };
  const end = fc.constantFrom("", " ", "\n", "\n\n", "\u3000", "é", "<", "|>");
  fc.assert(
    fc.property(end, fc.integer({ min: 0, max: 3 }), end, (first, times, last) => {
      const content = textContent(first + "Kept notes, read once. ".repeat(60 + times) + last);
      const prompt = template.render({
        messages: [
          { role: "user", content },
          { role: "assistant", content: textContent("short") },
          { role: "user", content },
        ],
      });
      const whole = vocabulary.tokenize(prompt.text, { special: true, begin: true });
      expect(vocabulary.tokenizePrompt(prompt, known)).toEqual(whole);
      expect(vocabulary.tokenizePrompt(prompt, known)).toEqual(whole);
    }),
    { numRuns: 100, seed: 7 },
  );
});

test.each([
  [["<|end|>"], ["\n\n", "</table>"], false],
  [["<|end|>"], ["|>b"], true],
  [["<|end|>"], ["a<|"], true],
  [["<|end|>"], ["end"], true],
  [["<|end|>"], ["(<|end|>)"], true],
  [["<|end|>"], [], false],
])("tokens %j and %j may overlap: %s", (controls, others, may) => {
  expect(mayOverlap(controls, others)).toBe(may);
});
