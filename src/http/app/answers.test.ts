import OpenAI, { APIError, BadRequestError } from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { PromptReport } from "../../engine.ts";
import { RepriseError } from "../../errors.ts";
import type { FakeAnswer, FakeEngineOptions } from "./fake-engine.ts";
import { ask, collect, fakeApp, fakeServer, post } from "./fake-server.ts";

/** Reprise's own part of an answer, which the official client's types do not know. */
interface WithReprise {
  readonly reprise?: { readonly computed_tokens: number; readonly reused: Record<string, number> };
}

describe("the official client", () => {
  let server: Awaited<ReturnType<typeof fakeServer>>;
  let client: OpenAI;
  beforeAll(async () => {
    server = await fakeServer();
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
  });
  afterAll(() => server[Symbol.asyncDispose]());

  test("gets a chat answer with usage and where the prompt came from", async () => {
    const answer = await client.chat.completions.create({
      model: "fake-1b",
      messages: [
        { role: "developer", content: "Be short." },
        { role: "user", content: [{ type: "text", text: "one two three" }] },
      ],
    });
    expect(answer).toMatchObject({
      object: "chat.completion",
      model: "fake-1b",
      choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: "I read 7 words." } }],
      usage: { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12, prompt_tokens_details: { cached_tokens: 0 } },
      reprise: {
        prompt_tokens: 7,
        computed_tokens: 7,
        reused: { resident: 0, memory: 0, disk: 0 },
        anywhere_tokens: 0,
      },
    });
    expect(answer.id).toMatch(/^chatcmpl-[0-9a-f]{32}$/);
    expect(answer.system_fingerprint).toMatch(/^fp_[0-9a-f]{10}$/);
    expect(Math.abs(answer.created - Date.now() / 1000)).toBeLessThan(5);
    expect(server.engine.requests.at(-1)?.sampling.temperature).toBe(1);
    expect(server.engine.requests.at(-1)?.prompt).toMatchObject({
      messages: [{ role: "developer" }, { role: "user" }],
    });
  });

  test("streams a chat: role first, then text, then the reason, then usage alone", async () => {
    const stream = await client.chat.completions.create({
      model: "default",
      messages: [{ role: "user", content: "tell me a story" }],
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await collect(stream);
    expect(chunks[0]?.choices[0]?.delta).toEqual({ role: "assistant", content: "" });
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe("I read 5 words.");
    expect(chunks.at(-2)?.choices[0]).toMatchObject({ delta: {}, finish_reason: "stop" });
    expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true);
    expect(chunks.at(-1)).toMatchObject({
      object: "chat.completion.chunk",
      choices: [],
      usage: { prompt_tokens: 5, completion_tokens: 5 },
      reprise: { computed_tokens: 5 },
    });
    expect(new Set(chunks.map((chunk) => chunk.id)).size).toBe(1);
  });

  test("finds Reprise's part in the last choice when it asked for no usage", async () => {
    const messages = [{ role: "user" as const, content: "the same text twice over" }];
    await client.chat.completions.create({ model: "default", messages });
    const stream = await client.chat.completions.create({ model: "default", messages, stream: true });
    const last = (await collect(stream)).at(-1) as OpenAI.ChatCompletionChunk & WithReprise;
    expect(last.choices[0]?.finish_reason).toBe("stop");
    expect(last.reprise).toMatchObject({ computed_tokens: 1, reused: { memory: 5, resident: 0, disk: 0 } });
    expect("usage" in last).toBe(false);
  });

  test("completes a text, streaming and not, with the same words", async () => {
    const whole = await client.completions.create({ model: "default", prompt: "a b c", max_tokens: 3 });
    expect(whole).toMatchObject({
      object: "text_completion",
      choices: [{ text: "I read 3", finish_reason: "length" }],
    });
    expect(whole.id).toMatch(/^cmpl-/);
    const stream = await client.completions.create({
      model: "default",
      prompt: ["a b c"],
      max_tokens: 3,
      stream: true,
    });
    const chunks = await collect(stream);
    expect(chunks.map((chunk) => chunk.choices[0]?.text).join("")).toBe("I read 3");
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe("length");
  });

  test("reads chat logprobs", async () => {
    const answer = await client.chat.completions.create({
      model: "default",
      messages: [{ role: "user", content: "hello" }],
      logprobs: true,
      top_logprobs: 2,
    });
    const content = answer.choices[0]?.logprobs?.content ?? [];
    expect(content.map((token) => token.token).join("")).toBe(answer.choices[0]?.message.content);
    expect(content[0]).toEqual({
      token: "I",
      logprob: -0.25,
      bytes: [73],
      top_logprobs: [
        { token: "I", logprob: -0.25, bytes: [73] },
        { token: "other1", logprob: -1, bytes: [0x6f] },
      ],
    });
  });

  test("reads completion logprobs, whose offsets run on through a stream", async () => {
    const whole = await client.completions.create({ model: "default", prompt: "a b", logprobs: 1 });
    expect(whole.choices[0]?.logprobs).toEqual({
      tokens: ["I", " read", " 2", " words", "."],
      token_logprobs: [-0.25, -0.25, -0.25, -0.25, -0.25],
      top_logprobs: ["I", " read", " 2", " words", "."].map((token) => ({ [token]: -0.25 })),
      text_offset: [0, 1, 6, 8, 14],
    });
    const stream = await client.completions.create({ model: "default", prompt: "a b", logprobs: 1, stream: true });
    const chunks = await collect(stream);
    expect(chunks.flatMap((chunk) => chunk.choices[0]?.logprobs?.text_offset ?? [])).toEqual([0, 1, 6, 8, 14]);
  });

  test("always finds the chosen token among completion logprobs, also when it is none of the likeliest", async () => {
    const chosen = { token: 7, text: " odd", bytes: [...Buffer.from(" odd")], logprob: -3 };
    const top = [{ token: 8, text: " usual", bytes: [...Buffer.from(" usual")], logprob: -0.1 }];
    const { app, engine } = fakeApp();
    const asked = async (logprobs: number) => {
      engine.generate = async function* generate() {
        yield { kind: "prompt", report };
        yield { kind: "text", text: " odd", tokens: [7], logprobs: [{ ...chosen, top: top.slice(0, logprobs) }] };
        yield { kind: "end", reason: "stop", completionTokens: 1 };
      };
      const answer = await post(app, "/v1/completions", { prompt: "x", logprobs });
      return ((await answer.json()) as OpenAI.Completion).choices[0]?.logprobs?.top_logprobs;
    };
    expect(await asked(1)).toEqual([{ " usual": -0.1, " odd": -3 }]);
    expect(await asked(0)).toEqual([{ " odd": -3 }]);
  });

  test("gets the usage so far in every chunk where it asks for it, as vLLM gives it", async () => {
    const { app } = fakeApp();
    const stream_options = { include_usage: true, continuous_usage_stats: true };
    const raw = await (await post(app, "/v1/chat/completions", ask("a", { stream: true, stream_options }))).text();
    const chunks = raw
      .split("\n\n")
      .flatMap((frame) => (frame.startsWith("data: {") ? [JSON.parse(frame.slice(6))] : []));
    const counts = (chunks as OpenAI.ChatCompletionChunk[]).map(({ usage }) => usage?.completion_tokens);
    expect(counts).toEqual([0, 1, 2, 3, 4, 5, 5, 5]);
  });

  test("is told of a prompt that is too long by the class that it shortens prompts for", async () => {
    await using small = await fakeServer({ fake: { contextTokens: 10 } });
    const other = new OpenAI({ baseURL: `${small.url}/v1`, apiKey: "none", maxRetries: 0 });
    const content = "word ".repeat(20);
    const messages = [{ role: "user" as const, content }];
    const refused = other.chat.completions.create({ model: "default", messages });
    await expect(refused).rejects.toBeInstanceOf(BadRequestError);
    await expect(refused).rejects.toMatchObject({ code: "context_length_exceeded", param: "messages" });
    await expect(refused).rejects.toThrow("maximum context length is 10 tokens");
    await expect(other.completions.create({ model: "default", prompt: content })).rejects.toBeInstanceOf(
      BadRequestError,
    );
  });

  test("lists the models and finds each by its name", async () => {
    const { data } = await client.models.list();
    expect(data.map((model) => model.id)).toEqual(["fake-1b", "default"]);
    await expect(client.models.retrieve("fake-1b.gguf")).resolves.toMatchObject({ object: "model" });
    await expect(client.models.retrieve("gpt-4o")).rejects.toMatchObject({ status: 404, code: "model_not_found" });
  });

  test("is told of a wrong field by its name", async () => {
    const wrong = client.chat.completions.create({ model: "default", messages: [], temperature: 0.5 });
    await expect(wrong).rejects.toMatchObject({ status: 400, param: "messages", type: "invalid_request_error" });
  });

  test("gets a failure in mid-stream as an error, not as a short answer", async () => {
    const failure = new RepriseError("ENGINE_FAILED", "The engine process ended.");
    await using broken = await fakeServer(scripted({ pieces: ["half", " of"], failure }));
    const other = new OpenAI({ baseURL: `${broken.url}/v1`, apiKey: "none", maxRetries: 0 });
    const stream = await other.chat.completions.create({
      model: "default",
      messages: [{ role: "user", content: "x" }],
      stream: true,
    });
    let text = "";
    const reading = (async () => {
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
    })();
    await expect(reading).rejects.toBeInstanceOf(APIError);
    await expect(reading).rejects.toMatchObject({ code: "engine_failed" });
    expect(text).toBe("half of");
  });
});

describe("the stream's framing", () => {
  test("survives any text, and any way of cutting the bytes", async () => {
    const pieces = ["a\r\n\r\ndata: [DONE]\n\n", "\n", "\u2028", '"\\', "é", "👩‍👩‍👧", "\r", "data:", "\0"];
    const { app } = fakeApp(scripted({ pieces }));
    const response = await post(app, "/v1/chat/completions", ask("x", { stream: true }));
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    const raw = await response.text();
    const frames = raw.split("\n\n");
    expect(raw.endsWith("data: [DONE]\n\n")).toBe(true);
    expect(frames.pop()).toBe("");
    expect(frames.pop()).toBe("data: [DONE]");
    const texts = frames.map((frame) => {
      expect(frame).toMatch(/^data: \{[^\n\r]*\}$/);
      const chunk = JSON.parse(frame.slice(6)) as OpenAI.ChatCompletionChunk;
      return chunk.choices[0]?.delta.content ?? "";
    });
    expect(texts.join("")).toBe(pieces.join(""));

    const bytes = new TextEncoder().encode(raw);
    for (const size of [1, 2, 3, 7, 64]) {
      const client = new OpenAI({ baseURL: "http://test/v1", apiKey: "none", fetch: async () => cut(bytes, size) });
      const stream = await client.chat.completions.create({ model: "default", messages: [], stream: true });
      const chunks = await collect(stream);
      expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe(pieces.join(""));
    }
  });

  test("says that it lives through a long prefill and long gaps", async () => {
    const { app } = fakeApp({
      ...scripted({ pieces: ["late"], prefillMs: 400, pieceMs: 400 }),
      limits: { keepAliveMs: 20 },
    });
    const raw = await (await post(app, "/v1/chat/completions", ask("x", { stream: true }))).text();
    const frames = raw.split("\n\n").filter((frame) => frame !== "");
    const firstData = frames.findIndex((frame) => frame.startsWith("data:"));
    expect(frames.slice(0, firstData).length).toBeGreaterThanOrEqual(2);
    expect(frames.slice(0, firstData).every((frame) => frame === ": keep-alive")).toBe(true);
    expect(frames.slice(firstData).filter((frame) => frame === ": keep-alive").length).toBeGreaterThanOrEqual(2);
  });

  test("an early refusal is an HTTP status even for a stream", async () => {
    const refusal = new RepriseError("QUEUE_FULL", "64 requests are waiting; try again.");
    const { app } = fakeApp(scripted({ pieces: [], refusal }));
    const response = await post(app, "/v1/chat/completions", ask("x", { stream: true }));
    expect(response.status).toBe(429);
    expect(response.headers.get("retry-after")).toBe("2");
    expect(await response.json()).toEqual({
      error: { message: refusal.message, type: "rate_limit_error", param: null, code: "queue_full" },
    });
  });

  test("an engine that stops without an end does not pass for a short answer", async () => {
    const { app, engine } = fakeApp();
    engine.generate = async function* generate() {
      yield { kind: "text", text: "half", tokens: [0] };
    };
    const streamed = await (await post(app, "/v1/completions", { prompt: "x", stream: true })).text();
    expect(streamed).toMatch(/"text":"half".*\n\ndata: \{"error":.*"code":"cancelled"\}\}\n\n$/s);
    expect((await post(app, "/v1/completions", { prompt: "x" })).status).toBe(503);
  });

  test("a failure after the first keep-alive travels in the stream, which then ends", async () => {
    const failure = new RepriseError("ENGINE_FAILED", "The engine process ended.");
    const { app } = fakeApp({
      ...scripted({ pieces: [], prefillMs: 100, failure }),
      limits: { keepAliveMs: 20 },
    });
    const response = await post(app, "/v1/completions", { prompt: "x", stream: true });
    expect(response.status).toBe(200);
    const frames = (await response.text()).split("\n\n").filter((frame) => frame.startsWith("data:"));
    expect(frames).toHaveLength(1);
    expect(JSON.parse(frames[0]!.slice(6))).toMatchObject({ error: { code: "engine_failed", type: "server_error" } });
  });
});

const report: PromptReport = {
  promptTokens: 1,
  computedTokens: 1,
  reused: {},
  anywhereTokens: 0,
  ttftMs: 1,
  prefillMs: 1,
  loadMs: 0,
};

function scripted(answer: FakeAnswer): { fake: FakeEngineOptions } {
  return { fake: { script: () => answer } };
}

/** A response whose body comes in pieces of `size` bytes. */
function cut(bytes: Uint8Array, size: number): Response {
  let at = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at >= bytes.length) controller.close();
      else controller.enqueue(bytes.slice(at, (at += size)));
    },
  });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}
