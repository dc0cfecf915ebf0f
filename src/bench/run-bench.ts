/**
 * One run from its options to its result: find or start the servers, warm them up, measure, read their figures again,
 * and give them back.
 */
import { RepriseError } from "../errors.ts";
import { version } from "../version.ts";
import { realClock } from "./clock.ts";
import { describeMachine, sourceCommit } from "./machine.ts";
import type { BenchOptions } from "./options.ts";
import type { BenchResult, Sample } from "./result.ts";
import { runTargets } from "./run-targets.ts";
import { Target } from "./target.ts";
import { workloads } from "./workloads.ts";

const warmUpTokens = 16;

export interface RunEvents {
  /** What is being done, in words, and the share of the rounds that is behind; told anew with every answer. */
  readonly onStep?: (step: string, share: number) => void;
  readonly onSample?: (sample: Sample) => void;
}

/**
 * @param command as it was typed, for the result.
 * @param signal ends the run early; the result then has what was measured until there.
 * @throws RepriseError BAD_CONFIG, TARGET_UNAVAILABLE, CANCELLED
 */
export async function runBench(
  options: BenchOptions,
  { command, signal, onStep, onSample }: { command: string; signal: AbortSignal } & RunEvents,
): Promise<BenchResult> {
  const definition = workloads[options.workload];
  if (definition === undefined) throw new RepriseError("BAD_CONFIG", `no workload is called "${options.workload}"`);

  await using targets = new OpenTargets();
  for (const target of options.targets) {
    onStep?.(target.start === undefined ? `asking ${target.url}` : `starting ${target.start}`, 0);
    targets.add(await Target.open(target, signal));
  }
  onStep?.("warming up", 0);
  for (const target of targets.all) await warmUp(target, options.warmUp, signal);
  for (const target of targets.all) await target.beginMeasuring();

  // One scale for all: every server is asked the same texts, letter for letter.
  const scale = targets.all[0]?.scale ?? { charactersPerToken: 4, source: "no server" };
  let turn = { label: "", round: 0, share: 0 };
  let answers = 0;
  const tellStep = () =>
    onStep?.(`${turn.label}, round ${turn.round + 1} of ${options.rounds}, ${answers} answers`, turn.share);
  const startedAt = new Date().toISOString();
  const samples = await runTargets({
    targets: targets.all.map((target) => ({ label: target.label, prepare: (request) => target.prepare(request) })),
    rounds: options.rounds,
    seed: options.seed,
    timeLimitMs: options.timeSeconds * 1000,
    signal,
    clock: realClock,
    originMs: realClock.now(),
    createWorkload: (seed) =>
      definition.create(options.workloadOptions, { charactersPerToken: scale.charactersPerToken, seed }),
    onRound: (next) => {
      turn = next;
      tellStep();
    },
    onSample: (sample) => {
      answers += 1;
      tellStep();
      onSample?.(sample);
    },
  });
  return {
    format: 1,
    bench: options.workload,
    command,
    commit: sourceCommit(),
    version,
    machine: describeMachine(),
    startedAt,
    seed: options.seed,
    options: {
      ...options.workloadOptions,
      rounds: options.rounds,
      time: options.timeSeconds,
      "warm-up": options.warmUp,
      "stall-timeout": options.stallSeconds,
      "characters-per-token": scale.charactersPerToken,
      "characters-per-token-source": scale.source,
    },
    warmUp: warmUpWords(options.warmUp),
    targets: await Promise.all(targets.all.map((target) => target.facts())),
    samples,
  };
}

/** Pages in weights and compiles what is compiled late. Its text begins as no workload's does, so that nothing is reused. */
async function warmUp(target: Target, count: number, signal: AbortSignal): Promise<void> {
  for (let index = 0; index < count; index += 1) {
    const content = `(${index}) Before we begin: count from one to twenty in words.`;
    const answer = await target.prepare({
      id: `warm-up ${index}`,
      group: "warm-up",
      path: "/v1/chat/completions",
      body: { messages: [{ role: "user", content }], max_tokens: warmUpTokens, temperature: 0 },
    })(signal);
    if (signal.aborted) throw new RepriseError("CANCELLED", "ended before anything was measured");
    // A server that refuses will refuse in the samples too, where it is counted and told.
    if (answer.outcome !== "ok") return;
  }
}

function warmUpWords(count: number): string {
  if (count === 0) return "none but the questions for the model and the scale of its tokens";
  const requests = count === 1 ? "one request" : `${count} requests, one after another,`;
  return `${requests} of ${warmUpTokens} answer tokens to every server, not counted`;
}

/** The servers of a run; given back together, also when one of them could not be opened. */
class OpenTargets implements AsyncDisposable {
  readonly all: Target[] = [];

  add(target: Target): void {
    this.all.push(target);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.all.map((target) => target[Symbol.asyncDispose]()));
  }
}
