/** The official client against the real server: what an application sees. */
import { OpenAI } from "openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sampleNotes } from "../src/bench/notes/notes.ts";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningServer, startServer } from "./support/server.ts";

const dataDirectory = mkdtempSync(join(tmpdir(), "reprise-client-"));
let server: RunningServer;

beforeAll(async () => {
  const keys = join(dataDirectory, "keys");
  writeFileSync(keys, "# of the second\nsecond-key\n", { mode: 0o600 });
  const access = ["--api-key", "first-key", "--api-key-file", keys, "--admin-key", "admin-key"];
  server = await startServer({ dataDirectory, flags: ["--memory", "64MiB", ...access] });
});
afterAll(async () => {
  await server.killAll();
  rmSync(dataDirectory, { recursive: true, force: true });
});

function client(apiKey: string): OpenAI {
  return new OpenAI({ apiKey, baseURL: `${server.url}/v1`, maxRetries: 0 });
}

const notes = sampleNotes({ seed: 61, characters: 3000 });
const asked = notes.questions.find(({ kind }) => kind === "local");
const messages = [{ role: "user" as const, content: `${notes.text}\n\nQuestion: ${asked?.question}` }];

test("a chat is answered, streaming and not, with usage that says what was reused", async () => {
  const whole = await client("first-key").chat.completions.create({
    model: "default",
    messages,
    temperature: 0,
    max_tokens: 32,
  });
  expect(whole.choices[0]?.message).toMatchObject({ role: "assistant", content: asked?.answer });
  expect(whole.choices[0]?.finish_reason).toBe("stop");
  expect(whole.usage?.prompt_tokens_details?.cached_tokens).toBe(0);

  const stream = await client("first-key").chat.completions.create({
    model: "reprise-22m-q8_0",
    messages,
    temperature: 0,
    max_tokens: 32,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let cached: number | undefined;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    cached = chunk.usage?.prompt_tokens_details?.cached_tokens ?? cached;
  }
  expect(text).toBe(asked?.answer);
  expect(cached).toBe((whole.usage?.prompt_tokens ?? 0) - 1);
});

test("another key is another tenant: it finds nothing of the first one's", async () => {
  const answer = await client("second-key").chat.completions.create({
    model: "default",
    messages,
    temperature: 0,
    max_tokens: 32,
  });
  expect(answer.usage?.prompt_tokens_details?.cached_tokens).toBe(0);
  expect(answer.choices[0]?.message.content).toBe(asked?.answer);
});

test("what a key sees of the server are its own requests", async () => {
  const ask = (path: string, key: string) => fetch(`${server.url}${path}`, { headers: { "x-api-key": key } });
  const { tenant } = (await (await ask("/cache/stats", "second-key")).json()) as { tenant: Record<string, unknown> };
  expect(tenant).toMatchObject({ requests: 1, computedTokens: tenant["promptTokens"] });
  expect(await (await ask("/cache/stats", "first-key")).json()).toMatchObject({ tenant: { requests: 2 } });
  for (const [key, status] of Object.entries({ "first-key": 403, "admin-key": 200, "other-key": 401 }))
    expect((await ask("/metrics", key)).status).toBe(status);
});

test("sampling with a seed repeats; logprobs name the tokens that were chosen", async () => {
  const request = { model: "default", prompt: "Note 1. The museum in", max_tokens: 12, temperature: 0.9, seed: 7 };
  const [once, twice] = [
    await client("first-key").completions.create(request),
    await client("first-key").completions.create(request),
  ];
  expect(once.choices[0]?.text).toBe(twice.choices[0]?.text);

  const chat = await client("first-key").chat.completions.create({
    model: "default",
    messages,
    temperature: 0,
    max_tokens: 32,
    logprobs: true,
    top_logprobs: 3,
  });
  const tokens = chat.choices[0]?.logprobs?.content ?? [];
  expect(tokens.map(({ token }) => token).join("")).toBe(asked?.answer);
  for (const { logprob, top_logprobs } of tokens) {
    expect(top_logprobs).toHaveLength(3);
    expect(logprob).toBeCloseTo(Math.max(...top_logprobs.map((top) => top.logprob)), 5);
  }
});

test("completions' logprobs hold the token that was chosen, also where it is unlikely", async () => {
  const request = { model: "default", prompt: "Note 1. The museum in", max_tokens: 12, temperature: 2, seed: 3 };
  for (const logprobs of [0, 1]) {
    const answer = await client("first-key").completions.create({ ...request, logprobs });
    const told = answer.choices[0]?.logprobs;
    const tokens = told?.tokens ?? [];
    expect(tokens).toHaveLength(12);
    for (const [index, token] of tokens.entries()) {
      const top = told?.top_logprobs?.[index] ?? {};
      expect(top[token]).toBe(told?.token_logprobs?.[index]);
      expect(Object.keys(top).length).toBeLessThanOrEqual(logprobs + 1);
    }
  }
});

test("a text's tokens come with their pieces, which join to the text", async () => {
  const ask = (body: object) =>
    fetch(`${server.url}/tokenize`, {
      method: "POST",
      body: JSON.stringify(body),
      headers: { "content-type": "application/json", "x-api-key": "first-key" },
    }).then((response) => response.json() as Promise<{ tokens: { id: number; piece: string | number[] }[] }>);
  const content = "Grüße, 世界 👍 <|end|>";
  const { tokens } = await ask({ content, with_pieces: true });
  const bytes = tokens.map(({ piece }) => Buffer.from(piece as string));
  expect(Buffer.concat(bytes).toString()).toBe(content);
  expect(await ask({ content })).toMatchObject({ tokens: tokens.map(({ id }) => id) });
});

test("errors come as the client's own classes, with the field's name", async () => {
  await expect(client("wrong").models.list()).rejects.toThrow(OpenAI.AuthenticationError);
  await expect(client("first-key").chat.completions.create({ model: "gpt-9", messages })).rejects.toThrow(
    OpenAI.NotFoundError,
  );
  await expect(
    client("first-key").chat.completions.create({ model: "default", messages, temperature: 9 }),
  ).rejects.toMatchObject({ status: 400, param: "temperature" });
  const long = [{ role: "user" as const, content: "word ".repeat(20_000) }];
  const tooLong = client("first-key").chat.completions.create({ model: "default", messages: long });
  await expect(tooLong).rejects.toThrow(OpenAI.BadRequestError);
  await expect(tooLong).rejects.toMatchObject({ code: "context_length_exceeded", param: "messages" });
  await expect(tooLong).rejects.toThrow(/maximum context length is \d+ tokens/);
});

test("a client that leaves stops the work: the next request does not wait for it", async () => {
  const leaving = new AbortController();
  const long = sampleNotes({ seed: 62, characters: 28_000 }).text;
  const left = client("first-key").completions.create(
    { model: "default", prompt: long, max_tokens: 500 },
    { signal: leaving.signal },
  );
  left.catch(() => {}); // it is cut off below
  await expect.poll(async () => await running(), { interval: 10 }).toBe(1);
  leaving.abort();
  const started = performance.now();
  await expect.poll(async () => await running(), { interval: 10, timeout: 2000 }).toBe(0);
  expect(performance.now() - started).toBeLessThan(400);
});

async function running(): Promise<number> {
  const response = await fetch(`${server.url}/cache/stats`, { headers: { authorization: "Bearer admin-key" } });
  return ((await response.json()) as { engine: { runningRequests: number } }).engine.runningRequests;
}
