/**
 * The first figure: time to first token of one long prompt, cold, warm, and after `kill -9` of everything and a restart.
 *
 *     npm run bench -- first-light [--rounds N] [--tokens N] [--json FILE]
 *
 * Each round has a prompt of its own, so that cold is cold; its arms follow each other. `off` is the same prompt with reading
 * and saving turned off, before or after `cold` by turns: what the cache costs where there is nothing to reuse. Times are
 * taken by an HTTP client from the sending of the request to the first text. Prints one JSON line; medians over the rounds.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { type Answer, askStreaming, stats } from "../test/support/client.ts";
import { questionPrompt } from "../test/support/prompts.ts";
import { repositoryRoot } from "../test/support/repository.ts";
import { startServer } from "../test/support/server.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    tokens: { type: "string", default: "4000" },
    json: { type: "string" },
  },
});
const rounds = Number(values.rounds);
const promptTokens = Number(values.tokens);

const dataDirectory = mkdtempSync(join(tmpdir(), "reprise-bench-"));
const samples: { off: number; cold: number; warm: number; restarted: number }[] = [];
let rightAnswers = 0;
const cachedTokens = { warm: promptTokens, restarted: promptTokens };
try {
  let server = await startServer({ dataDirectory });
  const warmUp = { prompt: "One two three", temperature: 0, max_tokens: 1 };
  for (let round = 0; round < rounds; round += 1) {
    const { prompt, answer } = await questionPrompt(server.url, { seed: 7_000 + round, tokens: promptTokens });
    const request = { prompt, temperature: 0, max_tokens: 24 };

    const computed = { ...request, reprise: { read: false, save: false } };
    const measured: Record<"off" | "cold", Answer | undefined> = { off: undefined, cold: undefined };
    for (const arm of round % 2 === 0 ? (["off", "cold"] as const) : (["cold", "off"] as const)) {
      await askStreaming(server.url, "/v1/completions", warmUp);
      measured[arm] = await askStreaming(server.url, "/v1/completions", arm === "off" ? computed : request);
    }
    const { off, cold } = measured as Record<"off" | "cold", Answer>; // both were set above
    await askStreaming(server.url, "/v1/completions", warmUp);
    const warm = await askStreaming(server.url, "/v1/completions", request);

    await stored(server.url);
    await server.killAll();
    server = await startServer({ dataDirectory });
    await askStreaming(server.url, "/v1/completions", warmUp);
    const restarted = await askStreaming(server.url, "/v1/completions", request);

    if (warm.text !== cold.text || restarted.text !== cold.text) throw new Error("the text differs between the arms");
    rightAnswers += cold.text === answer ? 1 : 0;
    samples.push({ off: time(off), cold: time(cold), warm: time(warm), restarted: time(restarted) });
    cachedTokens.warm = Math.min(cachedTokens.warm, warm.cachedTokens);
    cachedTokens.restarted = Math.min(cachedTokens.restarted, restarted.cachedTokens);
    process.stderr.write(`round ${round + 1}: ${JSON.stringify(samples.at(-1))}\n`);
  }
  await server.stop();
} finally {
  rmSync(dataDirectory, { recursive: true, force: true });
}

const cold = median(samples.map((sample) => sample.cold));
const warm = median(samples.map((sample) => sample.warm));
const restarted = median(samples.map((sample) => sample.restarted));
const result = {
  bench: "first-light",
  command: `npm run bench -- first-light --rounds ${rounds} --tokens ${promptTokens}`,
  commit: execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: repositoryRoot, encoding: "utf8" }).trim(),
  machine: `${cpus().length} x ${cpus()[0]?.model ?? "unknown processor"}, Node ${process.version}`,
  promptTokens,
  ttftMs: { cold, warm, restarted },
  coldOverOff: median(samples.map((sample) => sample.cold / sample.off)),
  coldOverWarm: cold / warm,
  coldOverRestarted: cold / restarted,
  cachedTokens,
  rightAnswers,
  samples,
};
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);
console.log(JSON.stringify(result));

function time(answer: { firstTextMs?: number }): number {
  if (answer.firstTextMs === undefined) throw new Error("an answer had no text");
  return Math.round(answer.firstTextMs * 10) / 10;
}

async function stored(url: string): Promise<void> {
  while ((await stats(url))["unsavedChunks"] !== 0) await new Promise((resolve) => setTimeout(resolve, 20));
}
