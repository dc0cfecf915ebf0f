/**
 * One long prompt, and how long its first token takes: without a cache, cold, again, after others took the server's sequences,
 * after `kill -9` of everything, and after an orderly end (which gives the memory tier back).
 *
 *     round:  no cache │ cold │ warm │ others, all at once │ after others │ kill -9, start │ after kill -9 │ end, start │ restarted
 *
 * Each round has texts of its own, so that cold is cold. "no cache" is another text of the same length, with reading and
 * saving turned off as Reprise and llama-server understand it, before or after "cold" by turns: what the cache costs where
 * there is nothing to reuse. A few short requests that are not counted go before each measured one, and the server
 * may save what it wants to save before it is killed.
 */
import { ask } from "./notes/notes.ts";
import type { Clock } from "./clock.ts";
import { metrics, valuesOf } from "./metrics.ts";
import { Random, seedOf } from "./notes/random.ts";
import type { BenchResult, Sample } from "./result.ts";
import { runRound } from "./runner.ts";
import { median } from "./statistics.ts";
import type { Target } from "./target.ts";
import type { WorkloadOptions } from "./workloads/workload-definition.ts";
import type { BenchRequest, TextScale } from "./workloads/workload.ts";
import { chatRequest, checkedShareOption, isChecked } from "./workloads/chat-request.ts";
import { OptionReader } from "./workloads/option-reader.ts";
import { charactersOf, OPEN_QUESTION, passage } from "./workloads/passage.ts";
import { requestList } from "./workloads/request-list.ts";

export const firstLightSummary =
  "one prompt cold, again, after kill -9 and after a restart; without --url our own server with the shipped model";

export const firstLightOptions: WorkloadOptions = {
  tokens: { value: "TOKENS", help: "length of the text in each prompt", default: "4000" },
  "output-len": { value: "TOKENS", help: "length of each answer that is not checked", default: "24" },
  others: {
    value: "N",
    help: "requests that take the server's sequences in between, all at once; 0 leaves that arm out",
    default: "4",
  },
  "other-tokens": { value: "TOKENS", help: "length of the text in each of those", default: "300" },
  "checked-share": checkedShareOption("rounds", "1"),
};

export interface FirstLightRun {
  readonly targets: readonly Target[];
  readonly options: Readonly<Record<string, string>>;
  readonly scale: TextScale;
  readonly rounds: number;
  readonly seed: number;
  /** No round begins later. */
  readonly timeLimitMs: number;
  readonly clock: Clock;
  readonly originMs: number;
  readonly signal: AbortSignal;
  readonly warmUp: (target: Target) => Promise<void>;
  readonly onTurn: (turn: { label: string; round: number; share: number }) => void;
  readonly onSample: (sample: Sample) => void;
}

/** @throws RepriseError BAD_CONFIG for an option; TARGET_UNAVAILABLE when a server does not come again. */
export async function runFirstLight(run: FirstLightRun): Promise<Sample[]> {
  const settings = readFirstLight(run.options);
  const samples: Sample[] = [];
  const { targets, rounds } = run;
  for (let round = 0; round < rounds; round += 1) {
    for (const [turn, target] of (round % 2 === 0 ? targets : targets.toReversed()).entries()) {
      if (run.signal.aborted || run.clock.now() - run.originMs > run.timeLimitMs) return samples;
      run.onTurn({ label: target.label, round, share: (round + turn / targets.length) / rounds });
      await oneRound(target, { ...run, ...settings, round, samples });
    }
  }
  return samples;
}

/** @throws RepriseError BAD_CONFIG listing every fault. */
export function readFirstLight(given: Readonly<Record<string, string>>) {
  const options = new OptionReader(firstLightOptions, given);
  const settings = {
    tokens: options.whole("tokens"),
    outputTokens: options.whole("output-len"),
    others: options.whole("others", { atLeast: 0 }),
    otherTokens: options.whole("other-tokens"),
    checkedShare: options.share("checked-share"),
  };
  options.done();
  return settings;
}

type Round = FirstLightRun & ReturnType<typeof readFirstLight> & { readonly round: number; readonly samples: Sample[] };

async function oneRound(target: Target, run: Round): Promise<void> {
  const { round, signal, others, otherTokens } = run;
  const request = requestOf(run, { part: "prompt", group: "cold", tokens: run.tokens });
  const uncached = withoutCache(requestOf(run, { part: "no cache", group: "no cache", tokens: run.tokens }));
  const measure = async (each: BenchRequest) => {
    if (signal.aborted) return;
    await run.warmUp(target);
    await send(target, [each], run, "counted");
  };
  for (const first of round % 2 === 0 ? [uncached, request] : [request, uncached]) await measure(first);
  await measure({ ...request, group: "warm" });
  if (others > 0) {
    const part = (index: number) => ({ part: `other ${index}`, group: "others", tokens: otherTokens });
    const busy = Array.from({ length: others }, (_, index) => requestOf(run, part(index)));
    await send(target, busy, run, "not counted");
    // Nothing is sent between: a warm-up would take the place of one of the others.
    await send(target, [{ ...request, group: "after others" }], run, "counted");
  }
  for (const [how, group] of [
    ["killed", "after kill -9"],
    ["stopped", "restarted"],
  ] as const) {
    await target.saved(signal);
    if (signal.aborted) return;
    try {
      await target.restart(how, signal);
    } catch (error) {
      if (signal.aborted) return; // what was measured until then stands
      throw error;
    }
    await measure({ ...request, group });
  }
}

async function send(
  target: Target,
  requests: readonly BenchRequest[],
  run: Round,
  kind: "counted" | "not counted",
): Promise<void> {
  const { samples, onSample, round, clock, signal, originMs } = run;
  const list = () => requests.map((request) => ({ startMs: 0, make: () => request }));
  const sent = await runRound({
    workload: requestList("first-light", list, undefined),
    label: target.label,
    prepare: (request) => target.prepare(request),
    timeLimitMs: Infinity,
    round,
    clock,
    signal,
    originMs,
  });
  if (kind === "not counted") return;
  for (const sample of sent) {
    samples.push(sample);
    onSample(sample);
  }
}

function requestOf(run: Round, { part, group, tokens }: { part: string; group: string; tokens: number }): BenchRequest {
  const seed = seedOf(run.seed + run.round, `first light ${part}`);
  const { text, questions } = passage(charactersOf(tokens, run.scale), seed);
  const [question] = new Random(seed).some(questions, 1);
  return chatRequest({
    id: `round ${run.round + 1} ${part}`,
    group,
    messages: [{ role: "user", content: ask(text, question?.question ?? OPEN_QUESTION) }],
    outputTokens: run.outputTokens,
    expected: isChecked(run.round, run.checkedShare) ? question?.answer : undefined,
  });
}

/** In the words of Reprise and of llama-server; to others it is a text that they have not seen. */
function withoutCache(request: BenchRequest): BenchRequest {
  return { ...request, body: { ...request.body, reprise: { read: false, save: false }, cache_prompt: false } };
}

/** A line per target: how many times sooner the first token comes than cold, as ratios of medians. */
export function firstLightLines({ targets, samples }: BenchResult): string[] {
  return targets.flatMap(({ label }) => {
    const of = (group: string) =>
      valuesOf(
        "ttft",
        samples.filter((sample) => sample.target === label && sample.group === group),
      );
    const cold = of("cold");
    const others = ["warm", "after others", "after kill -9", "restarted", "no cache"].flatMap((group) => {
      const times = of(group);
      return cold.length === 0 || times.length === 0 ? [] : [`${group} ${(median(cold) / median(times)).toFixed(2)}`];
    });
    if (others.length === 0) return [];
    return [`${label}: ${metrics.ttft.title.toLowerCase()}, cold over ${others.join(", over ")} (medians)`];
  });
}
