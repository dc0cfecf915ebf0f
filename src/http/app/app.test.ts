import { FakeEngine } from "./fake-engine.ts";
import { describe, expect, test } from "vitest";
import { RepriseError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { silentLog } from "../../log.ts";
import { loopbackHosts } from "../shell.ts";
import type { ErrorBody } from "../openai-error.ts";
import { fakeModel } from "./fake-engine.ts";
import { ask, fakeApp, post } from "./fake-server.ts";
import { promptBodyBytes } from "../served-model.ts";

const chatPath = "/v1/chat/completions";

describe("every failure has OpenAI's shape", () => {
  test.each<[code: ConstructorParameters<typeof RepriseError>[0], status: number, code: string, type: string]>([
    ["BAD_REQUEST", 400, "invalid_value", "invalid_request_error"],
    ["PROMPT_TOO_LONG", 400, "context_length_exceeded", "invalid_request_error"],
    ["QUEUE_FULL", 429, "queue_full", "rate_limit_error"],
    ["ENGINE_LOADING", 503, "engine_loading", "server_error"],
    ["ENGINE_FAILED", 503, "engine_failed", "server_error"],
    ["CANCELLED", 503, "cancelled", "server_error"],
  ])("%s of the engine is %i", async (code, status, publicCode, type) => {
    const refusal = new RepriseError(code, `about ${code}`, { field: "messages" });
    const { app } = fakeApp({ fake: { script: () => ({ pieces: [], refusal }) } });
    for (const stream of [false, true]) {
      const response = await post(app, chatPath, ask("x", { stream }));
      expect(response.status).toBe(status);
      expect(await response.json()).toEqual({
        error: { message: `about ${code}`, type, param: "messages", code: publicCode },
      });
      expect(response.headers.has("retry-after")).toBe(status === 429 || status === 503);
    }
  });

  test("a bug is a 500 that tells the client its request id and the log the reason", async () => {
    const lines: string[] = [];
    const log: Log = { ...silentLog, error: (line) => void lines.push(line) };
    const refusal = new Error("secret: /etc/passwd");
    const { app } = fakeApp({ log, fake: { script: () => ({ pieces: [], refusal }) } });
    const response = await post(app, chatPath, ask("x"), { "x-request-id": "abc-1" });
    const text = await response.text();
    expect(response.status).toBe(500);
    expect(response.headers.get("x-request-id")).toBe("abc-1");
    expect(text).toContain("abc-1");
    expect(text).not.toMatch(/secret|\.ts|at /);
    expect(lines.join()).toMatch(/abc-1.*secret/);
  });

  test.each<[title: string, path: string, init: RequestInit, status: number, code: string]>([
    ["unknown route", "/v1/nothing", {}, 404, "not_found"],
    ["unknown file", "/nothing.html", {}, 404, "not_found"],
    ["wrong method", chatPath, { method: "GET" }, 405, "method_not_allowed"],
    ["wrong method", "/health", { method: "DELETE" }, 405, "method_not_allowed"],
    ["a form", chatPath, { method: "POST", body: "a=b", headers: form }, 415, "not_json"],
    ["no content type", chatPath, { method: "POST", body: new Blob(["{}"]) }, 415, "not_json"],
    ["broken JSON", chatPath, json('{"messages": ['), 400, "invalid_json"],
    ["no UTF-8", chatPath, json(Buffer.from([0x7b, 0xff, 0x7d])), 400, "invalid_json"],
    ["deep nesting", chatPath, json("[".repeat(5_000_000)), 400, "invalid_json"],
    ["wide nesting", chatPath, json(`{"x":[${"[],".repeat(200_001)}[]]}`), 400, "invalid_json"],
    ["another model", chatPath, json(JSON.stringify(ask("x", { model: "gpt-4o" }))), 404, "model_not_found"],
    ["a long body", chatPath, json(JSON.stringify(ask("x".repeat(6_000_000)))), 413, "body_too_large"],
  ])("%s: %s", async (_title, path, init, status, code) => {
    const { app } = fakeApp({ limits: { bodyBytes: 5_500_000 } });
    const response = await app.request(path, init);
    expect(response.status).toBe(status);
    const body = (await response.json()) as ErrorBody;
    expect(Object.keys(body.error)).toEqual(["message", "type", "param", "code"]);
    expect(body.error.code).toBe(code);
    expect(response.headers.get("x-request-id")).toMatch(/^[\w-]{36}$/);
  });

  test("a wrong method is told the right ones", async () => {
    const { app } = fakeApp();
    expect((await app.request(chatPath)).headers.get("allow")).toBe("POST");
  });

  test("a body of unknown length is read up to the limit and no further", async () => {
    const { app } = fakeApp({ limits: { bodyBytes: 100_000 } });
    let sent = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        sent += 10_000;
        controller.enqueue(new Uint8Array(10_000).fill(0x20));
      },
    });
    const init = { method: "POST", body, headers: { "content-type": "application/json" }, duplex: "half" as const };
    const response = await app.request(chatPath, init);
    expect(response.status).toBe(413);
    expect(sent).toBeLessThan(200_000);
  });

  test.each(["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/cache/pin", "/cache/prefetch"])(
    "%s reads no more than a prompt for this model can have, of declared length or not",
    async (path) => {
      const { app } = fakeApp({ limits: { bodyBytes: 2 ** 30 } });
      const most = promptBodyBytes(fakeModel);
      const answerTo = async (bytes: number, declared: boolean) => {
        let sent = 0;
        const pull = (controller: ReadableStreamDefaultController<Uint8Array>) => {
          sent += 65_536;
          controller.enqueue(new Uint8Array(65_536).fill(0x20));
          if (sent >= bytes) controller.close();
        };
        const length = declared ? { "content-length": String(bytes) } : {};
        const headers = { "content-type": "application/json", ...length };
        const body = new ReadableStream<Uint8Array>({ pull }, { highWaterMark: 0 });
        const { status } = await app.request(path, { method: "POST", body, headers, duplex: "half" });
        return { status, sent };
      };
      expect(await answerTo(most + 1, true)).toEqual({ status: 413, sent: 0 });
      const inPieces = await answerTo(4 * most, false);
      expect(inPieces.status).toBe(413);
      expect(inPieces.sent).toBeLessThanOrEqual(most + 65_536);
      expect((await answerTo(most - 65_536, false)).status).toBe(400); // read, and no JSON
    },
  );

  test("bodies that arrive together share a limit, which comes back when they are gone", async () => {
    const { app } = fakeApp({ limits: { bodyBytes: 60_000, allBodiesBytes: 100_000 } });
    const headers = { "content-type": "application/json" };
    const half = () => {
      let release = (): void => {};
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          controller.enqueue(new Uint8Array(50_000).fill(0x20));
          release = () => controller.close();
        },
      });
      const answer = app.request(chatPath, { method: "POST", body, headers, duplex: "half" as const });
      return { answer: Promise.resolve(answer), release: () => release() };
    };
    const waiting = [half(), half()];
    const third = await half().answer;
    expect(third.status).toBe(429);
    expect(third.headers.get("retry-after")).toBe("2");
    for (const { release } of waiting) release();
    for (const { answer } of waiting) expect((await answer).status).toBe(400); // spaces are no JSON
    expect((await post(app, chatPath, ask("x".repeat(55_000)))).status).toBe(200);
  });

  test("a prompt that is longer than the context, in words that clients look for", async () => {
    const { app } = fakeApp({ fake: { contextTokens: 10 } });
    const prompts: [path: string, body: object, field: string][] = [
      [chatPath, ask("word ".repeat(11)), "messages"],
      ["/v1/completions", { prompt: "word ".repeat(12) }, "prompt"],
    ];
    for (const [path, body, field] of prompts) {
      for (const stream of [false, true]) {
        const response = await post(app, path, { ...body, stream });
        expect(response.status).toBe(400);
        const { error } = (await response.json()) as ErrorBody;
        expect(error).toMatchObject({ code: "context_length_exceeded", param: field, type: "invalid_request_error" });
        expect(error.message).toMatch(/has 1[23] tokens, .*this model's maximum context length is 10 tokens/);
      }
    }
  });
});

describe("web pages of others", () => {
  test("are given nothing by default", async () => {
    const { app } = fakeApp();
    const headers = { origin: "https://evil.example", "access-control-request-method": "POST" };
    const preflight = await app.request(chatPath, { method: "OPTIONS", headers });
    expect(preflight.headers.get("access-control-allow-origin")).toBeNull();
    expect((await app.request("/health", { headers })).headers.get("access-control-allow-origin")).toBeNull();
  });

  test("may be allowed by their origin, also to see errors", async () => {
    const { app } = fakeApp({ corsOrigins: ["https://good.example"], apiKeys: ["k"] });
    const allowed = async (origin: string, init: RequestInit) =>
      (await app.request(chatPath, { ...init, headers: { origin } })).headers.get("access-control-allow-origin");
    for (const init of [{ method: "OPTIONS" }, { method: "POST" }]) {
      expect(await allowed("https://good.example", init)).toBe("https://good.example");
      expect(await allowed("https://evil.example", init)).toBeNull();
    }
  });

  test("may all be allowed, with *", async () => {
    const { app } = fakeApp({ corsOrigins: ["*"], apiKeys: ["k"] });
    const headers = { origin: "https://any.example", "access-control-request-headers": "authorization" };
    for (const method of ["OPTIONS", "POST"]) {
      const response = await app.request(chatPath, { method, headers });
      expect(response.headers.get("access-control-allow-origin")).toBe("*");
    }
  });

  test("cannot reach a loopback server under a name of their own", async () => {
    const { app } = fakeApp({ allowedHosts: loopbackHosts });
    const status = async (host: string) => (await app.request(`http://${host}/health`)).status;
    for (const host of ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "reprise.localhost"]) {
      expect(await status(host)).toBe(200);
    }
    for (const host of ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example"]) {
      expect(await status(host)).toBe(403);
    }
  });
});

describe("around the answers", () => {
  test("health follows the engine's state", async () => {
    for (const [state, status, word] of [
      ["ready", 200, "ok"],
      ["loading", 503, "loading"],
      ["hung", 503, "hung"],
      ["failed", 503, "failed"],
    ] as const) {
      const { app } = fakeApp({ fake: { state } });
      const response = await app.request("/health");
      expect(response.status).toBe(status);
      expect(await response.json()).toEqual({ status: word });
    }
  });

  test("until the model is there, whatever needs it says so", async () => {
    for (const [state, code] of [
      ["loading", "engine_loading"],
      ["failed", "engine_failed"],
    ] as const) {
      const { app } = fakeApp({ fake: { state } });
      const responses = [
        await app.request("/v1/models"),
        await post(app, chatPath, ask("x")),
        await post(app, "/tokenize", { content: "x" }),
        await post(app, "/detokenize", { tokens: [0] }),
      ];
      for (const response of responses) {
        expect(response.status).toBe(503);
        expect(((await response.json()) as ErrorBody).error.code).toBe(code);
        expect(response.headers.has("retry-after")).toBe(true);
      }
      expect((await app.request("/metrics")).status).toBe(200);
    }
  });

  test("texts become tokens and texts again", async () => {
    const { app } = fakeApp();
    const tokenized = await (await post(app, "/tokenize", { content: "one two one", add_special: true })).json();
    expect(tokenized).toEqual({ tokens: [0, 1, 2, 3], count: 4 });
    expect(await (await post(app, "/detokenize", { tokens: [1, 2] })).json()).toEqual({ content: "one two" });
    expect((await post(app, "/detokenize", { tokens: [-1] })).status).toBe(400);
  });

  test("each token's piece comes with it: text, or bytes where these are no whole characters", async () => {
    const { app } = fakeApp({ fake: { contextTokens: 4, pieces: { 1: Buffer.from([0xc3]) } } });
    const body = { content: "one two", with_pieces: true };
    expect(await (await post(app, "/tokenize", body)).json()).toEqual({
      tokens: [
        { id: 0, piece: "one" },
        { id: 1, piece: [0xc3] },
      ],
      count: 2,
    });
    const long = await post(app, "/tokenize", { content: "a b c d e", with_pieces: true });
    expect(long.status).toBe(400);
    expect(((await long.json()) as ErrorBody).error.param).toBe("with_pieces");
    expect((await post(app, "/tokenize", { content: "a b c d e" })).status).toBe(200);
  });

  test("the tokenizer is that of the model that was named", async () => {
    const { app } = fakeApp();
    for (const [path, body] of [
      ["/tokenize", { content: "x" }],
      ["/detokenize", { tokens: [0] }],
    ] as const) {
      expect((await post(app, path, { ...body, model: "default" })).status).toBe(200);
      expect((await post(app, path, { ...body, model: "gpt-4o" })).status).toBe(404);
    }
  });

  test("llama-server's paths without /v1 are the same doors, with figures of their own", async () => {
    const { app } = fakeApp();
    expect((await post(app, "/chat/completions", ask("a b"))).status).toBe(200);
    expect((await post(app, "/completions", { prompt: "a b" })).status).toBe(200);
    expect(await (await app.request("/models?reload=1")).json()).toEqual(
      await (await app.request("/v1/models")).json(),
    );
    expect((await app.request("/models/default")).status).toBe(200);
    expect((await app.request("/chat/completions")).status).toBe(405);
    const figures = await (await app.request("/metrics")).text();
    for (const route of ["/chat/completions", "/completions"]) {
      expect(figures).toContain(`reprise_requests_total{route="${route}",status="200"} 1`);
    }
  });

  test("the cache's figures go out as they are", async () => {
    const { app } = fakeApp({ cacheStats: () => ({ anything: [1, { at: "all" }] }) });
    expect(await (await app.request("/cache/stats")).json()).toEqual({ anything: [1, { at: "all" }] });
  });

  test("a prompt is prefetched as a completion would read it, for the tenant that asks", async () => {
    const asked: unknown[] = [];
    const prefetch = (...args: [object, Uint32Array]) => Promise.resolve(asked.push(args) + 2);
    const { app } = fakeApp({ prefetch });
    const done = await post(app, "/cache/prefetch", { prompt: "one two one", cache_salt: "mine" });
    expect(await done.json()).toEqual({ prompt_tokens: 3, ready_tokens: 3 });
    const signal = expect.any(AbortSignal) as AbortSignal;
    expect(asked).toEqual([[{ salt: "mine", tenant: undefined }, Uint32Array.from([0, 1, 2]), signal]]);
    for (const body of [{}, { prompt: 7 }, { prompt: "x", cache_salt: 7 }])
      expect((await post(app, "/cache/prefetch", body)).status).toBe(400);
    expect((await post(app, "/cache/prefetch", { prompt: "x", model: "another" })).status).toBe(404);
    const locked = fakeApp({ prefetch, apiKeys: ["key"] });
    expect((await post(locked.app, "/cache/prefetch", { prompt: "x" })).status).toBe(401);
    expect(asked).toHaveLength(1);
  });

  test("a chat is prefetched and pinned by the request that will ask for its answer", async () => {
    const asked: Uint32Array[] = [];
    const note = (_: object, tokens: Uint32Array) => Promise.resolve(asked.push(tokens));
    const engine = new FakeEngine({ contextTokens: 20 });
    const { app } = fakeApp({ engine, prefetch: note, pin: note });
    const chat = {
      model: "default",
      messages: [{ role: "user", content: "one two one" }],
      max_tokens: 3,
      stream: true,
    };
    expect((await post(app, "/cache/prefetch", chat)).status).toBe(200);
    expect((await post(app, "/cache/pin", { ...chat, seconds: 60 })).status).toBe(200);
    expect(asked[0]).toEqual(
      await engine.promptTokens({ messages: [{ role: "user", content: [{ kind: "text", text: "one two one" }] }] }),
    );
    expect(asked[0]).toEqual(asked[1]);
    const both = await post(app, "/cache/prefetch", { ...chat, prompt: "x" });
    expect([both.status, await both.json()]).toMatchObject([400, { error: { param: "messages" } }]);
    const long = [{ role: "user", content: "word ".repeat(30) }];
    const tooLong = await post(app, "/cache/prefetch", { messages: long });
    expect([tooLong.status, await tooLong.json()]).toMatchObject([400, { error: { param: "messages" } }]);
    expect(asked).toHaveLength(2);
  });

  test("a prompt is pinned as a completion would read it, for the tenant that asks", async () => {
    const asked: unknown[] = [];
    const pin = (...args: [object, Uint32Array, number]) => Promise.resolve(asked.push(args) + 1);
    const { app } = fakeApp({ pin });
    const pinned = await post(app, "/cache/pin", { prompt: "one two one", seconds: 60, cache_salt: "mine" });
    expect(await pinned.json()).toEqual({ prompt_tokens: 3, pinned_tokens: 2, seconds: 60 });
    await post(app, "/cache/pin", { prompt: [1, 2], seconds: 0 });
    const signal = expect.any(AbortSignal) as AbortSignal;
    expect(asked).toEqual([
      [{ salt: "mine", tenant: undefined }, Uint32Array.from([0, 1, 2]), 60, signal],
      [{ salt: "", tenant: undefined }, Uint32Array.from([1, 2]), 0, signal],
    ]);
    for (const body of [{ prompt: "x" }, { prompt: "x", seconds: 3601 }, { seconds: 1 }, { prompt: "x", seconds: -1 }])
      expect((await post(app, "/cache/pin", body)).status).toBe(400);
    const locked = fakeApp({ pin, apiKeys: ["key"] });
    expect((await post(locked.app, "/cache/pin", { prompt: "x", seconds: 1 })).status).toBe(401);
    expect(asked).toHaveLength(2);
  });

  test("metrics tell what happened, under our names and those that schedulers read", async () => {
    const { app } = fakeApp();
    for (const text of ["a b c d", "a b c d"]) await post(app, chatPath, ask(text));
    await post(app, chatPath, ask("x", { stream: true })).then((response) => response.text());
    await post(app, chatPath, { messages: [] });
    await app.request("/wp-login.php");
    const response = await app.request("/metrics");
    expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
    const lines = (await response.text()).split("\n");
    for (const line of [
      'reprise_requests_total{route="/v1/chat/completions",status="200"} 3',
      'reprise_requests_total{route="/v1/chat/completions",status="400"} 1',
      'reprise_requests_total{route="other",status="404"} 1',
      "reprise_prompt_tokens_total 12",
      "reprise_computed_tokens_total 7",
      'reprise_reused_tokens_total{tier="memory"} 5',
      'reprise_reused_tokens_total{tier="disk"} 0',
      "reprise_generated_tokens_total 15",
      "reprise_engine_restarts_total 0",
      "reprise_engine_ready 1",
      "reprise_time_to_first_token_seconds_count 3",
      'vllm:num_requests_running{model_name="fake-1b"} 0',
      'vllm:num_requests_waiting{model_name="fake-1b"} 0',
      'vllm:kv_cache_usage_perc{model_name="fake-1b"} 0',
      'vllm:prefix_cache_queries{model_name="fake-1b"} 12',
      'vllm:prefix_cache_queries_total{model_name="fake-1b"} 12',
      'vllm:prefix_cache_hits{model_name="fake-1b"} 5',
      'vllm:prefix_cache_hits_total{model_name="fake-1b"} 5',
      'vllm:prompt_tokens_total{model_name="fake-1b"} 12',
      'vllm:generation_tokens_total{model_name="fake-1b"} 15',
      'vllm:time_to_first_token_seconds_count{model_name="fake-1b"} 3',
    ]) {
      expect(lines).toContain(line);
    }
    for (const line of lines) expect(line).not.toMatch(/wp-login|NaN/);
  });
});

const form = { "content-type": "application/x-www-form-urlencoded" };

function json(body: string | Buffer<ArrayBuffer>): RequestInit {
  return { method: "POST", body, headers: { "content-type": "application/json; charset=utf-8" } };
}
