/**
 * What does one token cost the embedded engine, without server and channel: on one thread, on threads that each step starts
 * anew, and on threads that are kept and sleep between steps?
 *
 *     npm run bench -- token-step [TOKENS]      after so many tokens of prompt, 1,500 unless given
 *
 * By turns, a few steps each, so that a machine that grows busy favours nobody.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { percentile } from "../src/bench/statistics.ts";
import { Context, rowsTogether } from "../src/engines/llama/process/context.ts";
import { physicalCores } from "../src/engines/llama/model/machine.ts";
import { StepThreads } from "../src/engines/llama/process/thread-choice.ts";
import { repositoryRoot } from "../test/support/repository.ts";
import { library, loadModel } from "../test/support/scheduler-rig.ts";
import { printLine, rounded } from "./support/timing.ts";

const held = Number(process.argv[2] ?? 1500);
const [passes, steps] = [8, 40];
const most = physicalCores();

const models = join(repositoryRoot, "models");
const file = readdirSync(models).find((name) => name.endsWith(".gguf"))!; // the shipped model
const model = loadModel(join(models, file));

function context(threads: number, threadPool: bigint | undefined): Context {
  const cells = Math.ceil((held + rowsTogether) / 256) * 256;
  // Deterministic: the number of threads stays what it is.
  const fixed = new StepThreads(threads, { deterministic: true });
  const made = Context.create({
    library,
    model,
    cells,
    sequences: 1,
    contexts: 3,
    threads: fixed,
    threadPool,
    abortFlag: undefined,
  });
  for (let from = 0; from < held; from += rowsTogether) decode(made, from, Math.min(rowsTogether, held - from));
  return made;
}

function decode(on: Context, from: number, tokens: number): void {
  on.begin();
  for (let i = 0; i < tokens; i += 1) on.add(0, from + i, 5 + ((from + i) % 900), i === tokens - 1);
  if (on.decode() !== "done") throw new Error(`llama.cpp computed no ${tokens} tokens after ${from}`);
  on.logits(tokens - 1);
}

const arms = {
  oneThread: context(1, undefined),
  freshThreads: context(most, undefined),
  keptThreads: context(most, library.createThreadPool(most)),
};
const times = { oneThread: [] as number[], freshThreads: [] as number[], keptThreads: [] as number[] };
for (let pass = 0; pass < passes; pass += 1) {
  for (const arm of ["oneThread", "freshThreads", "keptThreads"] as const) {
    for (let step = 0; step < steps; step += 1) {
      const started = performance.now();
      decode(arms[arm], held, 1);
      const elapsedMs = performance.now() - started;
      arms[arm].truncate(0, held);
      if (step > 0) times[arm].push(elapsedMs);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

const figures = Object.entries(times).map(([arm, ms]) => {
  const at = (share: number) => rounded(percentile(ms, share));
  return [arm, { p10Ms: at(0.1), p50Ms: at(0.5), p90Ms: at(0.9) }] as const;
});
printLine("token-step", Object.fromEntries(figures), { model: file, heldTokens: held, threads: most, passes, steps });
