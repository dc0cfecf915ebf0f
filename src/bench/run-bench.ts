/**
 * One run from its options to its result: find or start the servers, warm them up, measure, read their figures again,
 * and give them back.
 */
import { RepriseError } from "../errors.ts";
import { version } from "../version.ts";
import { realClock } from "./clock.ts";
import { describeMachine, sourceCommit } from "./machine.ts";
import { runFirstLight } from "./first-light.ts";
import type { BenchOptions } from "./options.ts";
import { OwnServer } from "./own-server.ts";
import type { BenchResult, Sample } from "./result.ts";
import { runTargets } from "./run-targets.ts";
import { loadName, underLoad } from "./sweep.ts";
import { Target } from "./target.ts";
import type { TextScale, Workload } from "./workloads/workload.ts";
import { workloads } from "./workloads.ts";

const warmUpTokens = 16;

export interface RunEvents {
  /** What is being done, in words, and the share of the rounds that is behind; told anew with every answer. */
  readonly onStep?: ((step: string, share: number) => void) | undefined;
  readonly onSample?: ((sample: Sample) => void) | undefined;
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
  const wanted = [...options.targets];
  using ownServer = wanted.length > 0 ? undefined : await OwnServer.prepare({ stallMs: options.stallSeconds * 1000 });
  if (ownServer !== undefined) wanted.push(ownServer.target);
  await using targets = new OpenTargets();
  for (const target of wanted) {
    onStep?.(target.start === undefined ? `asking ${target.url}` : `starting ${target.start}`, 0);
    targets.add(await Target.open(target, signal));
  }
  onStep?.("warming up", 0);
  for (const target of targets.all) await warmUp(target, options.warmUp, signal);
  if (signal.aborted) throw new RepriseError("CANCELLED", "ended before anything was measured");
  for (const target of targets.all) await target.beginMeasuring();

  // One scale for all: every server is asked the same texts, letter for letter.
  const scale = targets.all[0]?.scale ?? { charactersPerToken: 4, source: "no server" };
  const startedAt = new Date().toISOString();
  const samples = await measure(options, { targets: targets.all, scale, signal, onStep, onSample });
  return {
    format: 1,
    bench: options.bench,
    command,
    commit: sourceCommit(),
    version,
    machine: describeMachine(),
    startedAt,
    seed: options.seed,
    options: {
      ...(options.bench === "sweep" ? { of: options.workload, loads: options.loads.map(loadName).join(", ") } : {}),
      ...options.workloadOptions,
      rounds: options.rounds,
      time: options.timeSeconds,
      "warm-up": options.warmUp,
      "stall-timeout": options.stallSeconds,
      "characters-per-token": Number(scale.charactersPerToken.toFixed(2)),
      "characters-per-token-source": scale.source,
    },
    warmUp: warmUpWords(options.warmUp),
    targets: await Promise.all(targets.all.map((target) => target.facts())),
    samples,
  };
}

/** Every sample, whatever kind of run it is. */
async function measure(
  options: BenchOptions,
  run: { targets: readonly Target[]; scale: TextScale; signal: AbortSignal } & RunEvents,
): Promise<Sample[]> {
  const { targets, scale, signal, onStep, onSample } = run;
  let turn: { label: string; round: number; step?: number; share: number } = { label: "", round: 0, share: 0 };
  let answers = 0;
  const tellStep = () => {
    const load = options.loads[turn.step ?? 0];
    const step = load === undefined ? "" : `, ${loadName(load)}`;
    onStep?.(`${turn.label}, round ${turn.round + 1} of ${options.rounds}${step}, ${answers} answers`, turn.share);
  };
  const common = {
    rounds: options.rounds,
    seed: options.seed,
    timeLimitMs: options.timeSeconds * 1000,
    signal,
    clock: realClock,
    originMs: realClock.now(),
    onTurn: (next: typeof turn) => {
      turn = next;
      tellStep();
    },
    onSample: (sample: Sample) => {
      answers += 1;
      tellStep();
      onSample?.(sample);
    },
  };
  if (options.bench === "first-light") {
    const settings = { targets, scale, options: options.workloadOptions };
    return runFirstLight({ ...common, ...settings, warmUp: (target) => warmUp(target, options.warmUp, signal) });
  }
  return runTargets({
    ...common,
    targets: targets.map((target) => ({ label: target.label, prepare: (request) => target.prepare(request) })),
    steps: stepsOf(options, scale),
  });
}

function stepsOf({ workload, workloadOptions, loads }: BenchOptions, scale: TextScale): ((seed: number) => Workload)[] {
  const definition = workloads[workload];
  if (definition === undefined) throw new RepriseError("BAD_CONFIG", `no workload is called "${workload}"`);
  const withSeed = (seed: number) => ({ charactersPerToken: scale.charactersPerToken, seed });
  if (loads.length === 0) return [(seed) => definition.create(workloadOptions, withSeed(seed))];
  return loads.map(
    (load) => (seed: number) => underLoad(load, { definition, options: workloadOptions }, withSeed(seed)),
  );
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
    // A server that refuses will refuse in the samples too, where it is counted and told.
    if (answer.outcome !== "ok" || signal.aborted) return;
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
