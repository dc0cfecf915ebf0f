import { describe, expect, test } from "vitest";
import { textContent } from "../../chat/content.ts";
import type { ChatPrompt, GenerateRequest } from "../../engine.ts";
import { fakeModel } from "../app/fake-engine.ts";
import { ask } from "../app/fake-server.ts";
import { badField } from "../../../test/support/bad-field.ts";
import { openAiChat } from "./openai-chat.ts";
import { openAiCompletions } from "./openai-completions.ts";

const chat = (more: object) => openAiChat.parse(ask("hi", more), fakeModel);
const completion = (more: object) => openAiCompletions.parse({ prompt: "hi", ...more }, fakeModel);

describe("what the engine gets", () => {
  test("OpenAI's defaults, and as many tokens as the context has", () => {
    expect(chat({})).toEqual({
      model: undefined,
      stream: false,
      options: { includeUsage: false },
      cacheSalt: undefined,
      read: true,
      save: true,
      generate: {
        prompt: { messages: [{ role: "user", content: textContent("hi") }] },
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
      seed: -2,
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
      options: { includeUsage: true },
      cacheSalt: "s",
      read: false,
      save: false,
    });
    expect(generate).toMatchObject({
      prompt: { tools: [{ type: "function" }], templateArguments: { enable_thinking: false } },
      sampling: { temperature: 0, topP: 0.5, topK: 0, minP: 0.1, repeatPenalty: 1.1, seed: 2 ** 32 - 2 },
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

  test("what follows the last message: an answer, nothing, or its own continuation", () => {
    const ending = (more: object) => (chat(more).generate.prompt as { ending?: string }).ending;
    expect(ending({})).toBeUndefined();
    expect(ending({ add_generation_prompt: true, continue_final_message: false })).toBeUndefined();
    expect(ending({ add_generation_prompt: false })).toBe("nothing");
    expect(ending({ continue_final_message: true })).toBe("continued");
    expect(ending({ continue_final_message: true, add_generation_prompt: false })).toBe("continued");
  });

  test("prompts as text, as token ids, and as an array with one of them", () => {
    for (const prompt of ["hi", ["hi"]]) expect(completion({ prompt }).generate.prompt).toBe("hi");
    for (const prompt of [[1, 2], [[1, 2]]]) {
      expect(completion({ prompt }).generate.prompt).toEqual(Uint32Array.of(1, 2));
    }
  });

  test("a limit of -1 is none, under each of its names; the newest name counts first", () => {
    for (const name of ["max_completion_tokens", "max_tokens", "n_predict"]) {
      expect(chat({ [name]: -1 })).toEqual(chat({}));
      expect(chat({ [name]: 9 }).generate.maxTokens).toBe(9);
    }
    expect(chat({ n_predict: 1, max_tokens: 2, max_completion_tokens: 3 }).generate.maxTokens).toBe(3);
    expect(chat({ n_predict: 1, max_tokens: 2 }).generate.maxTokens).toBe(2);
  });

  test("a seed of -1 is none, as vLLM and llama-server have it", () => {
    expect(chat({ seed: -1 })).toEqual(chat({}));
  });

  test("biases in OpenAI's form and in llama-server's; false is never", () => {
    const biased = (logit_bias: unknown) => chat({ logit_bias }).generate.sampling.logitBias;
    expect(biased({ 7: 1.5, 8: -100 })).toEqual([
      [7, 1.5],
      [8, -100],
    ]);
    expect(
      biased([
        [7, 1],
        ["8", false],
      ]),
    ).toEqual([
      [7, 1],
      [8, -Infinity],
    ]);
    for (const nothing of [{}, [], null]) expect(biased(nothing)).toBeUndefined();
  });

  test("what the request says of reprise counts before cache_prompt", () => {
    expect(chat({ cache_prompt: false }).read).toBe(false);
    expect(chat({ cache_prompt: false, reprise: { read: true } }).read).toBe(true);
    expect(chat({ cache_prompt: false }).save).toBe(true);
  });

  test("an effort reaches the template as templates know it; what is said to the template itself counts first", () => {
    const handed = (more: object) => (chat(more).generate.prompt as ChatPrompt).templateArguments;
    expect(handed({ reasoning_effort: "high" })).toEqual({ reasoning_effort: "high", enable_thinking: true });
    expect(handed({ reasoning_effort: "none", chat_template_kwargs: { enable_thinking: true } })).toEqual({
      reasoning_effort: "none",
      enable_thinking: true,
    });
  });

  test("users may have long names", () => {
    expect(chat({ user: "x".repeat(100_000) })).toEqual(chat({}));
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
    ["stream_options", { stream_options: [] }],
    ["stream_options.include_usage", { stream_options: { include_usage: 1 } }],
    ["logit_bias", { logit_bias: { "50256": -100 } }],
    ["logit_bias", { logit_bias: { hello: 1 } }],
    ["logit_bias", { logit_bias: JSON.parse('{"__proto__": 1}') as object }],
    ["logit_bias", { logit_bias: JSON.parse('{"7": 1, "constructor": 1}') as object }],
    ["logit_bias", { logit_bias: { "1": 101 } }],
    ["logit_bias", { logit_bias: { "1": true } }],
    ["logit_bias[1]", { logit_bias: [[1, 1], [2]] }],
    ["logit_bias[0]", { logit_bias: [["Hello, World!", -0.5]] }],
    ["stop_token_ids[1]", { stop_token_ids: [1, -1] }],
    ["stream_options.continuous_usage_stats", { stream_options: { continuous_usage_stats: true } }],
    ["cache_salt", { cache_salt: 7 }],
    ["reprise", { reprise: [] }],
    ["reprise.reuse", { reprise: { reuse: "anywhere" } }],
    ["reprise.reuse", { reprise: { reuse: "everywhere" } }],
    ["reprise.read", { reprise: { read: "no" } }],
    ["model", { model: {} }],
  ])("%s in both requests: %j", (field, more) => {
    expect(badField(() => chat(more))).toBe(field);
    expect(badField(() => completion(more))).toBe(field);
  });

  test.each<[field: string, more: object]>([
    ["messages", { messages: [] }],
    ["messages", { messages: "hello" }],
    ["messages", { messages: Array.from({ length: 4097 }, () => ({ role: "user", content: "" })) }],
    ["messages[0]", { messages: ["hello"] }],
    ["messages[0]", { messages: [[]] }],
    ["messages[0].role", { messages: [{ content: "x" }] }],
    ["messages[0].role", { messages: [{ role: "bogus", content: "x" }] }],
    ["messages[0].role", { messages: [{ role: "User", content: "x" }] }],
    ["messages[0].content", { messages: [{ role: "user" }] }],
    ["messages[0].content", { messages: [{ role: "user", content: null }] }],
    ["messages[0].content", { messages: [{ role: "user", content: [] }] }],
    ["messages[0].content", { messages: [{ role: "user", content: null, refusal: "x" }] }],
    ["messages[0].content", { messages: [{ role: "tool", content: null, tool_call_id: "1" }] }],
    ["messages[0].content", { messages: [{ role: "assistant", content: null }] }],
    ["messages[0].content[0]", { messages: [{ role: "user", content: [{ type: "refusal", refusal: "x" }] }] }],
    ["messages[0].role", { messages: [{ role: "user|><|system", content: "x" }] }],
    ["continue_final_message", { continue_final_message: true, add_generation_prompt: true }],
    ["continue_final_message", { continue_final_message: 1 }],
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
    ["tools[1]", { tools: [{ type: "function" }, [{ type: "function" }]] }],
    ["tools[0].function", { tools: [{ type: "function", function: [] }] }],
    ["functions[0]", { functions: [[]] }],
    ["reasoning", { reasoning: [] }],
    ["response_format", { response_format: [] }],
    ["response_format.type", { response_format: { type: "json_object" } }],
    ["chat_template_kwargs", { chat_template_kwargs: "x" }],
    ["chat_template_kwargs", { chat_template_kwargs: [1] }],
  ])("%s in a chat: %j", (field, more) => {
    expect(badField(() => chat(more))).toBe(field);
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
    expect(badField(() => completion(more))).toBe(field);
  });

  test("bodies that are no objects", () => {
    for (const body of [null, [], "text", 5]) {
      expect(badField(() => openAiChat.parse(body, fakeModel))).toBeUndefined();
      expect(badField(() => openAiCompletions.parse(body, fakeModel))).toBeUndefined();
    }
  });

  test("a message quotes little of what was sent", () => {
    const huge = "x".repeat(1_000_000);
    expect(() => chat({ temperature: huge })).toThrow(/^temperature cannot be used: .{0,320}$/);
  });
});
