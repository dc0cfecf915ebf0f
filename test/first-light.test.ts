/** The main job, end to end: read a long prompt once; answer at once the next time, also after everything was killed. */
import { expect, onTestFinished, test } from "vitest";
import { sampleNotes } from "../src/bench/notes/notes.ts";
import { ask, askStreaming, stats } from "./support/client.ts";
import { forgetMemory, temporaryDirectory } from "./support/data-directory.ts";
import { isFull } from "./support/depth.ts";
import { questionPrompt, tokenize } from "./support/prompts.ts";
import { type RunningServer, startServer } from "./support/server.ts";
import { settled } from "./support/settled.ts";

/** Lengths in tokens: at small depth whatever computes takes half as long. */
const promptLength = isFull ? 4000 : 2000;
const busyLength = isFull ? 6000 : 3000;

test("a prompt is read once: warm, and after kill -9 of everything and a restart", async () => {
  const dataDirectory = temporaryDirectory();
  let server = await started(dataDirectory);
  const { prompt, answer } = await questionPrompt(server.url, { seed: 41, tokens: promptLength });
  const request = { prompt, temperature: 0, max_tokens: 24 };

  const cold = await askStreaming(server.url, "/v1/completions", request);
  expect(cold.promptTokens).toBe(promptLength);
  expect(cold.cachedTokens).toBe(0);
  expect(cold.text).toBe(answer);

  const warm = await askStreaming(server.url, "/v1/completions", request);
  expect(warm.cachedTokens).toBe(promptLength - 1);
  expect(warm.report.computed_tokens).toBe(1);
  expect(warm.text).toBe(cold.text);

  await settled(server.url);
  await server.killAll();
  server = await started(dataDirectory);
  const again = await askStreaming(server.url, "/v1/completions", request);
  expect(again.report.reused).toMatchObject({ memory: promptLength - 1, disk: 0 });
  expect(again.text).toBe(cold.text);

  await server.killAll();
  forgetMemory(dataDirectory);
  server = await started(dataDirectory);
  const last = await askStreaming(server.url, "/v1/completions", request);
  expect(last.report.reused).toMatchObject({ memory: 0, disk: promptLength - 1 });
  expect(last.text).toBe(cold.text);
}, 120_000);

test("what is stored is found also while others keep the engine busy", async () => {
  const server = await started(temporaryDirectory());
  const { prompt, answer } = await questionPrompt(server.url, { seed: 90, tokens: 2000 });
  const { prompt: long } = await questionPrompt(server.url, { seed: 91, tokens: busyLength });
  const request = { prompt, temperature: 0, max_tokens: 24 };
  await ask(server.url, "/v1/completions", request);
  // Five others take the sequences, so that the prompt is no longer resident.
  for (let other = 0; other < 5; other += 1)
    await ask(server.url, "/v1/completions", { prompt: long.slice(0, 40), cache_salt: `${other}`, max_tokens: 1 });

  const busy = ask(server.url, "/v1/completions", { prompt: long, max_tokens: 1 });
  await expect.poll(() => stats(server.url)).toMatchObject({ engine: { runningRequests: 1 } });
  const found = await ask(server.url, "/v1/completions", request);
  const { report } = await busy;
  expect(found).toMatchObject({ text: answer, cachedTokens: 1999 });
  expect(found.report.reused["memory"]).toBeGreaterThan(1900); // the first few tokens of all notes are resident
  expect(found.report.ttft_ms).toBeLessThan(report.ttft_ms);
}, 120_000);

const turns = isFull ? 10 : 6;

test(`a chat of ${turns} turns computes only what is new in each turn, also across a restart`, async () => {
  const dataDirectory = temporaryDirectory();
  let server = await started(dataDirectory);
  const { text, questions } = sampleNotes({ seed: 77, characters: 6000 });
  const messages: { role: string; content: string }[] = [];
  let known = 0;
  for (let turn = 0; turn < turns; turn += 1) {
    const question = `Question: ${questions[turn]?.question}`;
    messages.push({ role: "user", content: turn === 0 ? `${text}\n\n${question}` : question });
    const answer = await ask(server.url, "/v1/chat/completions", { messages, temperature: 0, max_tokens: 40 });
    if (turn > 0) {
      // What the cache holds of the turn before: its prompt and its answer, but for the token that ended it.
      expect(answer.cachedTokens, `turn ${turn}`).toBeGreaterThanOrEqual(known);
      expect(answer.report.computed_tokens).toBe(answer.promptTokens - answer.cachedTokens);
    }
    known = answer.promptTokens + answer.completionTokens - 1;
    messages.push({ role: "assistant", content: answer.text });
    if (turn === turns / 2) {
      await settled(server.url);
      await server.killAll();
      server = await started(dataDirectory);
    }
  }
}, 120_000);

test("read: false neither looks nor finds, save: false leaves nothing behind, a salt is a wall", async () => {
  const server = await started(temporaryDirectory());
  const tokens = await tokenize(server.url, sampleNotes({ seed: 5, characters: 4000 }).text);
  const request = (more: object, from: number) => ({
    prompt: tokens.slice(from, from + 300),
    temperature: 0,
    max_tokens: 4,
    ...more,
  });
  const cached = async (more: object, from: number) =>
    (await ask(server.url, "/v1/completions", request(more, from))).cachedTokens;

  expect(await cached({ reprise: { save: false } }, 0)).toBe(0);
  expect(await cached({}, 0)).toBe(0);
  expect(await cached({}, 0)).toBe(299);
  expect(await cached({ reprise: { read: false } }, 0)).toBe(0);
  expect(await cached({ cache_salt: "one" }, 0)).toBe(0);
  expect(await cached({ cache_salt: "one" }, 0)).toBe(299);
  expect(await cached({ cache_salt: "two" }, 0)).toBe(0);
}, 60_000);

async function started(dataDirectory: string): Promise<RunningServer> {
  const server = await startServer({ dataDirectory, flags: ["--memory", "256MiB", "--disk", "512MiB"] });
  onTestFinished(() => server.killAll());
  return server;
}
