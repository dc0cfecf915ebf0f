/**
 * Never wrong, the property: the text of a prompt is the same whether nothing, some or all of it was cached, in memory or
 * on disk, whoever else is served.
 *
 * Batching changes the last bits of logits, and a near tie then flips a token. So the server runs deterministic here: it
 * cuts every prompt into the same slices whatever is cached, and equality is exact, token for token.
 */
import { expect, onTestFinished, test } from "vitest";
import { ask, type Answer } from "./support/client.ts";
import { forgetMemory, temporaryDirectory } from "./support/data-directory.ts";
import { isFull, rounds } from "./support/depth.ts";
import { branchingPrompts, inParallel } from "./support/prompts.ts";
import { type RunningServer, startServer } from "./support/server.ts";
import { settled } from "./support/settled.ts";

const promptCount = rounds({ small: 32, full: 200 });
const longest = isFull ? 6000 : 2000;
/** Holds less than all prompts, so that some of what is read comes from disk. */
const memory = isFull ? "256MiB" : "64MiB";
const flags = ["--deterministic", "--threads", "1", "--sequences", "4", "--memory", memory, "--disk", "2GiB"];

test(`greedy text is the same off, cold, warm and after a restart, ${promptCount} prompts, four at a time`, async () => {
  const start = async (dataDirectory: string): Promise<RunningServer> => {
    const server = await startServer({ dataDirectory, flags });
    onTestFinished(() => server.killAll());
    return server;
  };
  const without = await start(temporaryDirectory());
  const prompts = await branchingPrompts(without.url, { count: promptCount, shortest: 10, longest, seed: 20 });
  const pass = (server: RunningServer, reprise: object): Promise<Answer[]> =>
    inParallel(prompts, 4, (prompt) =>
      ask(server.url, "/v1/completions", { prompt, temperature: 0, max_tokens: 12, ignore_eos: true, reprise }),
    );

  // Another process computes everything anew while this one remembers: one core each.
  const everythingComputed = pass(without, { read: false, save: false });
  const dataDirectory = temporaryDirectory();
  const server = await start(dataDirectory);
  const cold = await pass(server, {});
  const warm = await pass(server, {});
  await settled(server.url);
  await server.killAll();
  if (!isFull) forgetMemory(dataDirectory); // so few prompts would all come from memory
  const restarted = await pass(await start(dataDirectory), {});
  const off = await everythingComputed;
  expect(sum(off, ({ cachedTokens }) => cachedTokens)).toBe(0);

  const texts = (answers: readonly Answer[]) => answers.map(({ text }) => text);
  expect(texts(cold)).toEqual(texts(off));
  expect(texts(warm)).toEqual(texts(off));
  expect(texts(restarted)).toEqual(texts(off));

  // And the cache was really at work: whole slices of nearly every prompt came from it.
  const tokens = sum(off, ({ promptTokens }) => promptTokens);
  expect(sum(warm, ({ cachedTokens }) => cachedTokens)).toBeGreaterThan(0.85 * tokens);
  expect(sum(restarted, ({ report }) => report.reused["disk"] ?? 0)).toBeGreaterThan(0.3 * tokens);
  for (const { report } of [...cold, ...warm, ...restarted]) {
    const reused = Object.values(report.reused).reduce((total, part) => total + part, 0);
    expect(reused + report.computed_tokens).toBe(report.prompt_tokens);
  }
}, 900_000);

function sum(answers: readonly Answer[], value: (answer: Answer) => number): number {
  return answers.reduce((total, answer) => total + value(answer), 0);
}
