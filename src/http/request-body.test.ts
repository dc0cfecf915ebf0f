import { describe, expect, test } from "vitest";
import type { GenerateRequest } from "../engine.ts";
import { RepriseError } from "../errors.ts";
import { fakeModel } from "./fake-engine.ts";
import { ask } from "./fake-server.ts";
import { parseChat, parseCompletion, parseDetokenize, parseTokenize } from "./request-body.ts";

const chat = (more: object) => parseChat(ask("hi", more), fakeModel);
const completion = (more: object) => parseCompletion({ prompt: "hi", ...more }, fakeModel);

describe("what the engine gets", () => {
  test("OpenAI's defaults, and as many tokens as the context has", () => {
    expect(chat({})).toEqual({
      model: undefined,
      stream: false,
      includeUsage: false,
      cacheSalt: undefined,
      read: true,
      save: true,
      generate: {
        prompt: { messages: [{ role: "user", content: "hi" }] },
        sampling: {
          temperature: 1,
          topK: 0,
          topP: 1,
          minP: 0,
          repeatPenalty: 1,
          frequencyPenalty: 0,
          presencePenalty: 0,
        },
        maxTokens: fakeModel.contextTokens,
        stop: [],
        ignoreEnd: false,
      },
    });
  });

  test("every setting, under each of its names", () => {
    const { generate, ...rest } = chat({
      model: "default",
      stream: true,
      stream_options: { include_usage: true },
      max_completion_tokens: 7,
      temperature: 0,
      top_p: 0.5,
      top_k: -1,
      min_p: 0.1,
      repetition_penalty: 1.1,
      frequency_penalty: -1,
      presence_penalty: 1,
      seed: -1,
      stop: ["a", "b"],
      ignore_eos: true,
      logprobs: true,
      top_logprobs: 3,
      cache_salt: "s",
      reprise: { reuse: "prefix", read: false, save: false },
      tools: [{ type: "function" }],
      tool_choice: "auto",
      response_format: { type: "text" },
      chat_template_kwargs: { enable_thinking: false },
      n: 1,
      user: "someone",
      no_such_field: { ignored: true },
    });
    expect(rest).toEqual({
      model: "default",
      stream: true,
      includeUsage: true,
      cacheSalt: "s",
      read: false,
      save: false,
    });
    expect(generate).toMatchObject({
      prompt: { tools: [{ type: "function" }], templateArguments: { enable_thinking: false } },
      sampling: { temperature: 0, topP: 0.5, topK: 0, minP: 0.1, repeatPenalty: 1.1, seed: 2 ** 32 - 1 },
      maxTokens: 7,
      stop: ["a", "b"],
      ignoreEnd: true,
      logprobs: 3,
    } satisfies Partial<Record<keyof GenerateRequest, unknown>>);
    expect(completion({ max_tokens: 5, repeat_penalty: 1.2, stop: "x", logprobs: 0 }).generate).toMatchObject({
      maxTokens: 5,
      sampling: { repeatPenalty: 1.2 },
      stop: ["x"],
      logprobs: 0,
    });
  });

  test("null means the default, as many clients write it", () => {
    const nothing = { temperature: null, stop: null, n: null, logprobs: null, stream: null, tools: null, seed: null };
    expect(chat(nothing)).toEqual(chat({}));
    expect(completion({ echo: null, suffix: null, best_of: null, logit_bias: {} })).toEqual(completion({}));
  });

  test("a message's other fields reach the template; its parts become one text", () => {
    const parsed = parseChat(
      {
        messages: [
          { role: "assistant", content: null, tool_calls: [{ id: "1" }] },
          { role: "tool", tool_call_id: "1", content: [{ type: "text", text: "a" }, { text: "b" }] },
        ],
      },
      fakeModel,
    );
    expect(parsed.generate.prompt).toEqual({
      messages: [
        { role: "assistant", content: "", tool_calls: [{ id: "1" }] },
        { role: "tool", tool_call_id: "1", content: "a\nb" },
      ],
    });
  });

  test("prompts as text, as token ids, and as an array with one of them", () => {
    for (const prompt of ["hi", ["hi"]]) expect(completion({ prompt }).generate.prompt).toBe("hi");
    for (const prompt of [[1, 2], [[1, 2]]]) {
      expect(completion({ prompt }).generate.prompt).toEqual(Uint32Array.of(1, 2));
    }
  });

  test("tokenize has llama-server's defaults", () => {
    expect(parseTokenize({ content: "a" })).toEqual({ text: "a", begin: false, special: true });
    expect(parseTokenize({ prompt: "a", add_special: true, parse_special: false })).toEqual({
      text: "a",
      begin: true,
      special: false,
    });
  });
});

describe("what is refused, by the field's name", () => {
  const long = "x".repeat(1025);
  test.each<[field: string, more: object]>([
    ["temperature", { temperature: "hot" }],
    ["temperature", { temperature: 2.5 }],
    ["temperature", { temperature: Number.POSITIVE_INFINITY }],
    ["top_p", { top_p: -0.1 }],
    ["top_k", { top_k: 1.5 }],
    ["min_p", { min_p: 2 }],
    ["repeat_penalty", { repeat_penalty: 0 }],
    ["frequency_penalty", { frequency_penalty: 3 }],
    ["presence_penalty", { presence_penalty: [] }],
    ["max_tokens", { max_tokens: 0 }],
    ["max_completion_tokens", { max_completion_tokens: 1e10 }],
    ["seed", { seed: 0.5 }],
    ["stop", { stop: 5 }],
    ["stop", { stop: "" }],
    ["stop", { stop: Array.from({ length: 17 }, () => "x") }],
    ["stop[1]", { stop: ["x", long] }],
    ["stop[0]", { stop: [null] }],
    ["n", { n: 2 }],
    ["stream", { stream: "yes" }],
    ["stream_options", { stream_options: true }],
    ["stream_options.include_usage", { stream_options: { include_usage: 1 } }],
    ["logit_bias", { logit_bias: { "50256": -100 } }],
    ["cache_salt", { cache_salt: 7 }],
    ["reprise.reuse", { reprise: { reuse: "anywhere" } }],
    ["reprise.reuse", { reprise: { reuse: "everywhere" } }],
    ["reprise.read", { reprise: { read: "no" } }],
    ["model", { model: {} }],
  ])("%s in both requests: %j", (field, more) => {
    expect(fieldOf(() => chat(more))).toBe(field);
    expect(fieldOf(() => completion(more))).toBe(field);
  });

  test.each<[field: string, more: object]>([
    ["messages", { messages: [] }],
    ["messages", { messages: "hello" }],
    ["messages", { messages: Array.from({ length: 4097 }, () => ({ role: "user", content: "" })) }],
    ["messages[0]", { messages: ["hello"] }],
    ["messages[0].role", { messages: [{ content: "x" }] }],
    [
      "messages[1].content",
      {
        messages: [
          { role: "user", content: "x" },
          { role: "user", content: 7 },
        ],
      },
    ],
    [
      "messages[0].content[1]",
      { messages: [{ role: "user", content: [{ type: "text", text: "x" }, { type: "image_url" }] }] },
    ],
    ["top_logprobs", { top_logprobs: 2 }],
    ["top_logprobs", { logprobs: true, top_logprobs: 21 }],
    ["tool_choice", { tool_choice: "required" }],
    ["tool_choice", { tool_choice: { type: "function" } }],
    ["tools", { tools: {} }],
    ["response_format.type", { response_format: { type: "json_object" } }],
    ["chat_template_kwargs", { chat_template_kwargs: "x" }],
  ])("%s in a chat: %j", (field, more) => {
    expect(fieldOf(() => chat(more))).toBe(field);
  });

  test.each<[field: string, more: object]>([
    ["prompt", { prompt: undefined }],
    ["prompt", { prompt: [] }],
    ["prompt", { prompt: ["a", "b"] }],
    ["prompt", { prompt: [[1], [2]] }],
    ["prompt[1]", { prompt: [1, -1] }],
    ["prompt[0]", { prompt: [fakeModel.vocabularySize] }],
    ["prompt[0][0]", { prompt: [[1.5]] }],
    ["echo", { echo: true }],
    ["best_of", { best_of: 3 }],
    ["suffix", { suffix: "x" }],
    ["logprobs", { logprobs: true }],
  ])("%s in a completion: %j", (field, more) => {
    expect(fieldOf(() => completion(more))).toBe(field);
  });

  test("bodies that are no objects", () => {
    for (const body of [null, [], "text", 5]) {
      expect(fieldOf(() => parseChat(body, fakeModel))).toBeUndefined();
      expect(fieldOf(() => parseTokenize(body))).toBeUndefined();
    }
    expect(fieldOf(() => parseTokenize({}))).toBe("content");
    expect(fieldOf(() => parseDetokenize({ tokens: "x" }, fakeModel))).toBe("tokens");
    expect(fieldOf(() => parseDetokenize({ tokens: [0, "x"] }, fakeModel))).toBe("tokens[1]");
  });

  test("a message quotes little of what was sent", () => {
    const huge = "x".repeat(1_000_000);
    expect(() => chat({ temperature: huge })).toThrow(/^temperature cannot be used: .{0,320}$/);
  });
});

/** The field that a BAD_REQUEST names. */
function fieldOf(parse: () => unknown): string | undefined {
  try {
    parse();
  } catch (error) {
    if (error instanceof RepriseError && error.code === "BAD_REQUEST") return error.field;
    throw error;
  }
  throw new Error("was accepted");
}
