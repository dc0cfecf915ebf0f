/** Every row of the tables of fields, with values that ask for something and values that do not. */
import { isDeepStrictEqual } from "node:util";
import { describe, expect, test } from "vitest";
import { textContent } from "../../chat/content.ts";
import { badField } from "../../../test/support/bad-field.ts";
import { fakeModel } from "../app/fake-engine.ts";
import { parseDetokenize, parseTokenize } from "../admin/admin-body.ts";
import { openAiChat } from "../forms/openai-chat.ts";
import { openAiCompletions } from "../forms/openai-completions.ts";
import { chatFields, messageFields, toolFields, toolFunctionFields } from "./chat-fields.ts";
import { completionFields } from "./completion-fields.ts";
import type { Body, Fields, Refused } from "./field.ts";
import { detokenizeFields, modelsQuery, tokenizeFields } from "./tokenizer-fields.ts";

/** Values of all kinds, of which most ask for something wherever a field means something. */
const anything: readonly unknown[] = [true, false, 0, 1, 7, 0.5, -3, "x", "", [], [3], ["x"], {}, { x: 1 }];

interface Requests {
  readonly rows: Fields;
  /** What is asked with these fields beside the least that must be there. */
  readonly parse: (more: Body) => unknown;
  /** For each used field: a value, where it goes, and one that is refused. */
  readonly used: Readonly<Record<string, { value: unknown; gives: object; wrong: unknown; with?: Body }>>;
}

const generate = (more: object) => ({ generate: more });
const sampling = (more: object) => ({ generate: { sampling: more } });
const template = (more: object) => ({ generate: { prompt: more } });

const answers: Requests["used"] = {
  model: { value: "default", gives: { model: "default" }, wrong: 7 },
  stream: { value: true, gives: { stream: true }, wrong: "yes" },
  stream_options: { value: { include_usage: true }, gives: { options: { includeUsage: true } }, wrong: true },
  max_completion_tokens: { value: 7, gives: generate({ maxTokens: 7 }), wrong: 0 },
  max_tokens: { value: -1, gives: generate({ maxTokens: fakeModel.contextTokens }), wrong: -2 },
  n_predict: { value: 7, gives: generate({ maxTokens: 7 }), wrong: 1.5 },
  min_tokens: { value: 3, gives: generate({ minTokens: 3 }), wrong: -1 },
  temperature: { value: 0.5, gives: sampling({ temperature: 0.5 }), wrong: 3 },
  top_p: { value: 0.5, gives: sampling({ topP: 0.5 }), wrong: 2 },
  top_k: { value: 5, gives: sampling({ topK: 5 }), wrong: -2 },
  min_p: { value: 0.5, gives: sampling({ minP: 0.5 }), wrong: -1 },
  repeat_penalty: { value: 1.1, gives: sampling({ repeatPenalty: 1.1 }), wrong: 0 },
  repetition_penalty: { value: 1.1, gives: sampling({ repeatPenalty: 1.1 }), wrong: 0 },
  frequency_penalty: { value: 1, gives: sampling({ frequencyPenalty: 1 }), wrong: 3 },
  presence_penalty: { value: 1, gives: sampling({ presencePenalty: 1 }), wrong: 3 },
  logit_bias: { value: { "3": -100 }, gives: sampling({ logitBias: [[3, -100]] }), wrong: { hello: 1 } },
  seed: { value: 7, gives: sampling({ seed: 7 }), wrong: 0.5 },
  stop: { value: "x", gives: generate({ stop: ["x"] }), wrong: 7 },
  stop_token_ids: { value: [3], gives: generate({ stopTokens: [3] }), wrong: ["x"] },
  ignore_eos: { value: true, gives: generate({ ignoreEnd: true }), wrong: 1 },
  cache_prompt: { value: false, gives: { read: false }, wrong: 0 },
  cache_salt: { value: "s", gives: { cacheSalt: "s" }, wrong: 7 },
  reprise: { value: { save: false }, gives: { save: false }, wrong: { reuse: "anywhere" } },
  response_format: { value: { type: "text" }, gives: {}, wrong: { type: "json_object" } },
};

const tool = { type: "function", function: { name: "f" } };
const messages = [{ role: "user", content: "hi" }];

const requests: Readonly<Record<string, Requests>> = {
  "/v1/chat/completions": {
    rows: chatFields,
    parse: (more) => openAiChat.parse({ messages, ...more }, fakeModel),
    used: {
      ...answers,
      messages: {
        value: messages,
        gives: template({ messages: [{ role: "user", content: textContent("hi") }] }),
        wrong: [],
      },
      tools: { value: [tool], gives: template({ tools: [tool] }), wrong: {} },
      tool_choice: { value: "none", gives: {}, wrong: "required" },
      functions: { value: [{ name: "f" }], gives: template({ tools: [tool] }), wrong: {} },
      function_call: { value: "auto", gives: {}, wrong: { name: "f" } },
      logprobs: { value: true, gives: generate({ logprobs: 0 }), wrong: 1 },
      top_logprobs: { value: 2, gives: generate({ logprobs: 2 }), wrong: 21, with: { logprobs: true } },
      chat_template_kwargs: { value: { a: 1 }, gives: template({ templateArguments: { a: 1 } }), wrong: "x" },
      add_generation_prompt: { value: false, gives: template({ ending: "nothing" }), wrong: 1 },
      continue_final_message: { value: true, gives: template({ ending: "continued" }), wrong: 1 },
      reasoning_effort: {
        value: "low",
        gives: template({ templateArguments: { reasoning_effort: "low", enable_thinking: true } }),
        wrong: "much",
      },
      reasoning: {
        value: { effort: "none" },
        gives: template({ templateArguments: { reasoning_effort: "none", enable_thinking: false } }),
        wrong: { effort: 1 },
      },
    },
  },
  "/v1/completions": {
    rows: completionFields,
    parse: (more) => openAiCompletions.parse({ prompt: "hi", ...more }, fakeModel),
    used: {
      ...answers,
      prompt: { value: [1, 2], gives: generate({ prompt: Uint32Array.of(1, 2) }), wrong: {} },
      logprobs: { value: 2, gives: generate({ logprobs: 2 }), wrong: true },
    },
  },
  "/tokenize": {
    rows: tokenizeFields,
    parse: (more) => parseTokenize({ prompt: "hi", ...more }),
    used: {
      model: { value: "default", gives: { model: "default" }, wrong: 7 },
      content: { value: "yo", gives: { text: "yo" }, wrong: 7 },
      prompt: { value: "yo", gives: { text: "yo" }, wrong: 7 },
      add_special: { value: true, gives: { begin: true }, wrong: 1 },
      add_special_tokens: { value: true, gives: { begin: true }, wrong: 1 },
      parse_special: { value: false, gives: { special: false }, wrong: 1 },
      with_pieces: { value: true, gives: { withPieces: true }, wrong: 1 },
    },
  },
  "/detokenize": {
    rows: detokenizeFields,
    parse: (more) => parseDetokenize({ tokens: [1], ...more }, fakeModel),
    used: {
      model: { value: "default", gives: { model: "default" }, wrong: 7 },
      tokens: { value: [2], gives: { tokens: Uint32Array.of(2) }, wrong: "x" },
    },
  },
};

describe.each(Object.entries(requests))("%s", (_path, { rows, parse, used }) => {
  const named = Object.entries(rows);

  test.each(named.flatMap(([name, row]) => (row.rule === "used" ? [name] : [])))("%s does what it says", (name) => {
    const sample = used[name];
    if (sample === undefined) throw new Error(`${name} is used and has no sample here`);
    const beside = sample.with ?? {};
    expect(parse({ ...beside, [name]: sample.value })).toMatchObject(sample.gives);
    expect(badField(() => parse({ ...beside, [name]: sample.wrong }))).toMatch(new RegExp(`^${name}\\b`));
    if (name in { messages: 1, prompt: 1, tokens: 1 }) return; // these must be there
    expect(parse({ [name]: null })).toEqual(parse({}));
  });

  const refused = named.flatMap(([name, row]) => (row.rule === "refused" ? [{ name, row }] : []));
  test.each(refused)("$name is refused, unless it asks for nothing", ({ name, row }) => {
    for (const neutral of [null, ...row.neutral]) expect(parse({ [name]: neutral })).toEqual(parse({}));
    const asking = askingFor(row);
    expect(asking.length).toBeGreaterThan(0);
    for (const { value, beside } of asking) {
      expect(badField(() => parse({ ...beside, [name]: value }))).toBe(name);
    }
  });

  const ignored = named.flatMap(([name, row]) => (row.rule === "ignored" ? [name] : []));
  test.each([...ignored, "no_such_field"])("%s changes nothing", (name) => {
    for (const value of anything) expect(parse({ [name]: value })).toEqual(parse({}));
  });
});

test("the parts of messages and tools keep their tables too", () => {
  const parts: [at: string, rows: Fields, parse: (more: Body) => unknown][] = [
    ["messages[0]", messageFields, (more) => requested({ messages: [{ ...messages[0], ...more }] })],
    ["tools[0]", toolFields, (more) => requested({ tools: [{ ...tool, ...more }] })],
    ["tools[0].function", toolFunctionFields, (more) => requested({ tools: [{ function: { name: "f", ...more } }] })],
    ["functions[0]", toolFunctionFields, (more) => requested({ functions: [{ name: "f", ...more }] })],
  ];
  for (const [at, rows, parse] of parts) {
    for (const [name, row] of Object.entries(rows)) {
      if (row.rule !== "refused") continue;
      for (const neutral of [null, ...row.neutral]) expect(() => parse({ [name]: neutral })).not.toThrow();
      for (const { value } of askingFor(row)) expect(badField(() => parse({ [name]: value }))).toBe(`${at}.${name}`);
    }
  }
  expect(badField(() => requested({ tools: [{ type: "custom", custom: { name: "f" } }] }))).toBe("tools[0].type");
  expect(badField(() => requested({ tools: [tool], functions: [{ name: "g" }] }))).toBe("functions");
});

test("numbers that turn a sampler off pass, whatever number they are", () => {
  for (const [name, value] of Object.entries({ top_n_sigma: -0.5, typical_p: 1.5, adaptive_target: -1 })) {
    expect(requested({ [name]: value })).toEqual(requested({}));
  }
  // A window of penalties asks for nothing where there is no penalty.
  expect(requested({ repeat_last_n: 256, repeat_penalty: 1 })).toEqual(requested({}));
  expect(badField(() => requested({ repeat_last_n: 256, repeat_penalty: 1.1 }))).toBe("repeat_last_n");
});

test("a refusal says why, and what would pass", () => {
  expect(() => requested({ n: 2 })).toThrow(/^n is refused: this server gives one answer .*; leave it out, or send 1$/);
  expect(() => requested({ guided_json: {} })).toThrow(/constrained to a form; leave it out$/);
});

test("no table names a field that is not one of its API's: names are lower case, and none is in two tables of rules", () => {
  for (const { rows } of Object.values(requests)) {
    for (const [name, row] of Object.entries(rows)) {
      expect(name).toMatch(/^[a-z_]+$/);
      expect(row.from.length).toBeGreaterThan(0);
    }
  }
  for (const row of Object.values(modelsQuery)) expect(row.rule).toBe("ignored"); // nobody reads that query
});

function requested(more: Body): unknown {
  return openAiChat.parse({ messages, ...more }, fakeModel);
}

/** Values that do ask for something, with penalties beside them where only these make them count. */
function askingFor(row: Refused): { value: unknown; beside: Body }[] {
  const beside = { repeat_penalty: 1.5 };
  return anything
    .filter((value) => !row.neutral.some((neutral) => isDeepStrictEqual(neutral, value)))
    .filter((value) => row.also?.holds(value, beside) !== true)
    .map((value) => ({ value, beside }));
}
