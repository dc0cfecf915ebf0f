/**
 * `reprise verify`: does the cache give back what was computed, on this machine, with this model?
 *
 * Runs prompts that share beginnings, each four times: computed with nothing reused, warm, warm after the cache and the
 * engine were closed and opened again, and computed once more under another salt. Tokens must be equal in all four, and
 * the stored bytes of the first must be those of the last, chunk by chunk. Uses a folder of its own, removed at the end.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { bareRoot } from "../identity/keys.ts";
import type { CacheSession } from "../session.ts";
import type { Config } from "../config.ts";
import type { LlamaEngine } from "../engines/llama/server/engine.ts";
import { type CacheUse, greedy } from "../engine.ts";
import { RepriseError } from "../errors.ts";
import { createLog, silentLog, type Log } from "../log.ts";
import { CacheHost } from "./cache-host.ts";
import type { Command } from "./command.ts";
import { type Progress, showProgress } from "./progress.ts";
import { type ChosenModel, chooseModel } from "./choose-model.ts";
import { startEngine } from "./serve.ts";
import { endRequested } from "./signals.ts";

const answerTokens = 16;
/** As a shell says it of a command that Ctrl-C has ended. */
const interrupted = 130;
const otherSalt = "verify: computed again";

export const verify: Command = {
  name: "verify",
  summary: "compares answers and stored bytes: cold, warm, and after a restart of the cache",
  options: {
    prompts: { value: "N", help: "Prompts to run. [12]" },
    tokens: { value: "N", help: "Tokens of the longest prompt; it must fit into the context with its answer. [2000]" },
  },

  async run({ config, own }) {
    const promptCount = wholeNumber("prompts", own["prompts"] ?? "12", 1, 10_000);
    const longest = wholeNumber("tokens", own["tokens"] ?? "2000", 64, 1 << 20);
    const dataDir = newDirectory();
    const stop = new AbortController();
    void endRequested(silentLog).then(() => stop.abort());
    try {
      const unheard = { socket: "", listen: "", listenCert: "", listenKey: "", tokenFile: "" };
      const alone = { ...unheard, listenCompress: "lossless" as const, tier: [], tierKeyFile: "" };
      const isolated: Config = { ...config, ...alone, dataDir, deterministic: true, draft: "off" };
      const differences = await compareRuns(isolated, { promptCount, longest, stop: stop.signal });
      for (const difference of differences) process.stderr.write(`${difference}\n`);
      process.stdout.write(differences.length === 0 ? "equal\n" : `${differences.length} differences\n`);
      return differences.length === 0 ? 0 : 1;
    } catch (error) {
      if (stop.signal.aborted) return interrupted;
      throw error;
    } finally {
      rmSync(dataDir, { recursive: true, force: true });
    }
  },
};

interface Arm {
  readonly tokens: readonly number[];
  readonly reusedTokens: number;
}

/** @throws whatever it was doing when `stop` fired */
async function compareRuns(
  config: Config,
  { stop, ...size }: { promptCount: number; longest: number; stop: AbortSignal },
): Promise<string[]> {
  const log = createLog({ level: config.logLevel === "info" ? "warn" : config.logLevel });
  const model = await chooseModel(config);
  using progress = showProgress("Verifying");
  const parts = { config, model, log, stop, progress: new TokenProgress(progress) };
  const first = await runArms(parts, async (run) => {
    const prompts = await makePrompts(run.engine, size);
    parts.progress.expect(4 * tokensOf(prompts)); // of the four runs below
    const cold = await run.answers(prompts, { salt: "", read: false, save: true });
    const warm = await run.answers(prompts, { salt: "", read: true, save: true });
    return { prompts, cold, warm };
  });
  const { prompts, cold, warm } = first;
  const second = await runArms(parts, async (run) => {
    const restarted = await run.answers(prompts, { salt: "", read: true, save: true });
    const again = await run.answers(prompts, { salt: otherSalt, read: false, save: true });
    const stored = await run.storedBytes(prompts, "");
    const computed = await run.storedBytes(prompts, otherSalt);
    return { restarted, again, stored, computed };
  });
  progress.end();

  const arms = { warm, "after the restart": second.restarted, "computed again": second.again };
  report({ cold, ...arms }, prompts);
  const differences: string[] = [];
  for (const [index, prompt] of prompts.entries()) {
    for (const [name, answers] of Object.entries(arms)) {
      const [expected, got] = [cold[index]?.tokens.join(" "), answers[index]?.tokens.join(" ")];
      if (expected !== got)
        differences.push(`prompt ${index} (${prompt.length} tokens), ${name}: tokens ${got} instead of ${expected}`);
    }
    if (second.stored[index] !== second.computed[index])
      differences.push(`prompt ${index} (${prompt.length} tokens): the stored bytes differ from those computed again`);
  }
  for (const [name, answers] of Object.entries({ warm, "after the restart": second.restarted })) {
    if (answers.every(({ reusedTokens }) => reusedTokens === 0))
      differences.push(`${name}: nothing was reused, so nothing was compared`);
  }
  return differences;
}

/** A cache and an engine over the data directory, for as long as `work` runs. */
async function runArms<T>(
  parts: { config: Config; model: ChosenModel; log: Log; stop: AbortSignal; progress: TokenProgress },
  work: (run: { engine: LlamaEngine; answers: AnswerAll; storedBytes: DigestAll }) => Promise<T>,
): Promise<T> {
  await using host = await CacheHost.open(parts);
  await using engine = startEngine({ ...parts, host });
  const { reuse } = await Promise.race([engine.ready, stopped(parts.stop)]);
  if (reuse !== true) throw new RepriseError("MODEL_INVALID", `there is nothing to verify: ${reuse.refused}`);
  const session = host.cache.openSession(await engine.guest);
  try {
    const result = await work({
      engine,
      answers: (prompts, cache) => answerAll(engine, prompts, { cache, ...parts }),
      storedBytes: async (prompts, salt) => {
        while (engine.stats().unsavedChunks > 0) await sleep(10);
        return digestAll(host, session, prompts, salt);
      },
    });
    while (engine.stats().unsavedChunks > 0) await sleep(10);
    return result;
  } finally {
    await session.close();
  }
}

type AnswerAll = (prompts: readonly Uint32Array[], cache: CacheUse) => Promise<Arm[]>;
type DigestAll = (prompts: readonly Uint32Array[], salt: string) => Promise<string[]>;

/** How many of the prompts' tokens are done, as a share on the terminal. */
class TokenProgress {
  readonly #progress: Progress;
  #expected = Number.POSITIVE_INFINITY;
  #done = 0;

  constructor(progress: Progress) {
    this.#progress = progress;
  }

  expect(tokens: number): void {
    this.#expected = tokens;
  }

  add(tokens: number): void {
    this.#done += tokens;
    this.#progress.update(this.#done / this.#expected);
  }
}

async function answerAll(
  engine: LlamaEngine,
  prompts: readonly Uint32Array[],
  { cache, progress, stop }: { cache: CacheUse; progress: TokenProgress; stop: AbortSignal },
): Promise<Arm[]> {
  const arms: Arm[] = [];
  for (const prompt of prompts) {
    const tokens: number[] = [];
    let reusedTokens = 0;
    const request = { prompt, sampling: greedy, maxTokens: answerTokens, stop: [], ignoreEnd: true, cache };
    for await (const event of engine.generate(request, AbortSignal.any([stop, AbortSignal.timeout(600_000)]))) {
      if (event.kind === "prompt") reusedTokens = event.report.promptTokens - event.report.computedTokens;
      if (event.kind === "text") tokens.push(...event.tokens);
    }
    arms.push({ tokens, reusedTokens });
    progress.add(prompt.length);
  }
  return arms;
}

/** One digest per prompt over the payloads of all its stored chunks, headers included. */
async function digestAll(
  host: CacheHost,
  session: CacheSession,
  prompts: readonly Uint32Array[],
  salt: string,
): Promise<string[]> {
  const digests: string[] = [];
  for (const prompt of prompts) {
    const hash = createHash("sha256");
    for await (const batch of session.load({ ...bareRoot, salt }, prompt, 0, { deadlineMs: 60_000 })) {
      for (const chunk of batch)
        if (chunk.take === chunk.tokenCount) hash.update(`${chunk.firstToken} `).update(host.slotView(chunk.slot));
      session.release(batch.map(({ lease }) => lease));
    }
    digests.push(hash.digest("hex"));
  }
  return digests;
}

/** Prompts of increasing length; every other one begins with two thirds of the one before it. */
async function makePrompts(
  engine: LlamaEngine,
  size: { promptCount: number; longest: number },
): Promise<Uint32Array[]> {
  const prompts: Uint32Array[] = [];
  for (let index = 0; index < size.promptCount; index += 1) {
    const length = Math.max(16, Math.round((size.longest * (index + 1)) / size.promptCount));
    const text = Array.from(
      { length },
      (_, line) => `Line ${line} of text ${index} says ${(line * 7919 + index * 104_729) % 9973}.`,
    );
    const own = await engine.tokenize(text.join("\n"), { special: false, begin: true });
    const before = prompts.at(-1);
    const shared =
      index % 2 === 1 && before !== undefined ? before.subarray(0, Math.floor((before.length * 2) / 3)) : [];
    prompts.push(Uint32Array.from([...shared, ...own]).subarray(0, length));
  }
  return prompts;
}

function report(arms: Readonly<Record<string, readonly Arm[]>>, prompts: readonly Uint32Array[]): void {
  const total = tokensOf(prompts);
  process.stdout.write(`${prompts.length} prompts, ${total} tokens, ${answerTokens} generated after each\n`);
  for (const [name, answers] of Object.entries(arms)) {
    const reused = answers.reduce((sum, { reusedTokens }) => sum + reusedTokens, 0);
    process.stdout.write(
      `${name.padEnd(20)}${((100 * reused) / total).toFixed(1).padStart(6)} % of the prompt tokens reused\n`,
    );
  }
}

/** @throws RepriseError BAD_CONFIG */
function newDirectory(): string {
  try {
    return mkdtempSync(join(tmpdir(), "reprise-verify-"));
  } catch (cause) {
    throw new RepriseError("BAD_CONFIG", `no folder can be made in ${tmpdir()}: set TMPDIR to another`, { cause });
  }
}

/** Never resolves; rejects when somebody wants an end. */
function stopped(stop: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const end = () => reject(new RepriseError("CANCELLED", "verify was ended"));
    if (stop.aborted) end();
    stop.addEventListener("abort", end);
  });
}

function tokensOf(prompts: readonly Uint32Array[]): number {
  return prompts.reduce((sum, { length }) => sum + length, 0);
}

function wholeNumber(name: string, given: string, least: number, most: number): number {
  const value = /^\d+$/.test(given) ? Number(given) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new RepriseError("BAD_CONFIG", `--${name}: "${given}" is not a whole number from ${least} to ${most}`);
}
