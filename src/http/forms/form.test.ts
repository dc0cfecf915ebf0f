/** An API of another kind than OpenAI's is one more form: named events, blocks, a count of frames, other words for refusals. */
import { expect, test } from "vitest";
import { textContent } from "../../chat/content.ts";
import { greedy } from "../../engine.ts";
import { RepriseError } from "../../errors.ts";
import { silentLog } from "../../log.ts";
import { Access } from "../access.ts";
import { answerRoutes } from "../app/answers.ts";
import { defaultLimits } from "../app-env.ts";
import { type FakeAnswer, FakeEngine } from "../app/fake-engine.ts";
import { post } from "../app/fake-server.ts";
import { refuse } from "../fields/field.ts";
import { createMetrics } from "../metrics/metrics.ts";
import { BodyReader } from "../read-json.ts";
import { type App, createShell } from "../shell.ts";
import { type AnswerForm, gathered } from "./form.ts";

const event = (type: string, more: object) => `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`;

/** Blocks in named events, each with its number; a busy server has a status of this API's own. */
const blocks: AnswerForm<{ readonly name: string }> = {
  paths: ["/v1/blocks"],
  promptField: "input",
  parse(body) {
    const { input, stream = false, name } = body as { input?: unknown; stream?: boolean; name: string };
    if (typeof input !== "string") return refuse("input", "must be a string");
    const prompt = { messages: [{ role: "user", content: textContent(input) }] };
    return {
      model: undefined,
      stream,
      cacheSalt: undefined,
      read: true,
      save: true,
      generate: { prompt, sampling: greedy, maxTokens: 5, stop: [] },
      options: { name },
    };
  },
  writer({ model }, { name }) {
    let number = 0;
    const numbered = (type: string, more: object) => event(type, { number: number++, ...more });
    return {
      frames(told) {
        if (told.kind === "prompt")
          return [numbered("answer_start", { name, tokens: told.report.promptTokens }), numbered("block_start", {})];
        if (told.kind === "text") return [numbered("block_delta", { text: told.text })];
        return [numbered("block_stop", {}), numbered("answer_stop", { reason: told.reason })];
      },
      failure: ({ code }) => [numbered("error", { code })],
      whole(events) {
        const { texts, end } = gathered(events);
        return { model, name, blocks: texts.map(({ text }) => ({ type: "text", text })), reason: end.reason };
      },
    };
  },
  error: ({ status, code, message, field }) => ({
    status: status === 429 ? 529 : status,
    body: { type: "error", error: { type: code, about: field, message } },
  }),
};

function app(answer: FakeAnswer, apiKeys: string[] = []): App {
  const engine = new FakeEngine({ script: () => answer });
  const access = new Access({ apiKeys, serverSecret: "" });
  const app = createShell({
    access,
    guarded: ["/v1/*"],
    log: silentLog,
    errorFormAt: (path) => (blocks.paths.includes(path) ? blocks.error : undefined),
  });
  const bodies = new BodyReader(defaultLimits);
  const metrics = createMetrics({ engine, cacheFigures: [] });
  const parts = { engine, access, bodies, metrics, log: silentLog, limits: defaultLimits, version: "0" };
  return app.route("/", answerRoutes([blocks], parts));
}

test("its answers have its shape, whole and in named events", async () => {
  const served = app({ pieces: ["a", "b"] });
  const asked = { input: "x y", name: "n" };
  expect(await (await post(served, "/v1/blocks", asked)).json()).toEqual({
    model: "fake-1b",
    name: "n",
    blocks: [
      { type: "text", text: "a" },
      { type: "text", text: "b" },
    ],
    reason: "stop",
  });
  expect(await (await post(served, "/v1/blocks", { ...asked, stream: true })).text()).toBe(
    [
      event("answer_start", { number: 0, name: "n", tokens: 3 }),
      event("block_start", { number: 1 }),
      event("block_delta", { number: 2, text: "a" }),
      event("block_delta", { number: 3, text: "b" }),
      event("block_stop", { number: 4 }),
      event("answer_stop", { number: 5, reason: "stop" }),
    ].join(""),
  );
});

test("a failure in mid-stream is one of its frames", async () => {
  const failure = new RepriseError("ENGINE_FAILED", "The engine process ended.");
  const served = app({ pieces: ["a"], failure });
  const told = await (await post(served, "/v1/blocks", { input: "x", name: "n", stream: true })).text();
  expect(told.endsWith(event("error", { number: 3, code: "engine_failed" }))).toBe(true);
});

test("its refusals have its words, wherever they come from: parser, engine, guard, shell", async () => {
  const tooLong = new RepriseError("PROMPT_TOO_LONG", "too long", { field: "prompt" });
  const busy = new RepriseError("QUEUE_FULL", "busy");
  const refused = async (answered: Promise<Response> | Response) => {
    const response = await answered;
    return { status: response.status, body: await response.json() };
  };
  const asked = { input: "x", name: "n" };
  const words = (type: string, about?: string) => ({
    type: "error",
    error: { type, message: expect.any(String), ...(about !== undefined && { about }) },
  });
  const plain = app({ pieces: [] });
  expect(await refused(post(plain, "/v1/blocks", {}))).toEqual({ status: 400, body: words("invalid_value", "input") });
  for (const stream of [false, true]) {
    const of = (refusal: Error) => post(app({ pieces: [], refusal }), "/v1/blocks", { ...asked, stream });
    const long = { status: 400, body: words("context_length_exceeded", "input") };
    expect(await refused(of(tooLong))).toEqual(long);
    expect(await refused(of(busy))).toEqual({ status: 529, body: words("queue_full") });
  }
  const guarded = await refused(post(app({ pieces: [] }, ["key"]), "/v1/blocks", asked));
  expect(guarded).toEqual({ status: 401, body: words("missing_api_key") });
  expect(await refused(plain.request("/v1/blocks"))).toEqual({ status: 405, body: words("method_not_allowed") });
  expect(await refused(plain.request("/v1/elsewhere"))).toMatchObject({ body: { error: { code: "not_found" } } });
});
