/**
 * A benchmark result as a run would leave it, from a seed: users who ask in rounds about a long text, of a server that
 * keeps what it read and of one that does not. For the tests of what is made from results.
 */
import type { BenchResult, Outcome, Sample, TargetFacts } from "../../src/bench/result.ts";
import { seededRandom } from "./prompts.ts";

export interface SampleResultOptions {
  readonly seed?: number;
  /** Times every duration: a run on a slower day. */
  readonly slowness?: number;
  readonly users?: number;
  /** Rounds of the conversation. */
  readonly turns?: number;
  /** Rounds of the run: each repeats all users, on both targets. */
  readonly rounds?: number;
}

const labels = ["reprise", "llama-server"] as const;
const textTokens = 3000;

export function sampleResult(options: SampleResultOptions = {}): BenchResult {
  const { seed = 1, slowness = 1, users = 8, turns = 5, rounds = 3 } = options;
  const random = seededRandom(seed);
  const samples: Sample[] = [];
  for (let round = 1; round <= rounds; round++) {
    for (const target of labels) {
      for (let user = 1; user <= users; user++) {
        let clockMs = round * 1_000_000 + (target === "reprise" ? 0 : 500_000) + user * 400;
        for (let turn = 1; turn <= turns; turn++) {
          const sample = ask({ target, round, user, turn, dueMs: clockMs, slowness, random });
          samples.push(sample);
          clockMs = sample.endMs + 200 + random() * 300;
        }
      }
    }
  }
  return {
    format: 1,
    bench: "chat",
    command: `reprise bench chat --users ${users} --turns ${turns} --peer llama-server`,
    commit: "818ef33d3a1c0a5be1f2a4c7f10be2f6a3c45e11",
    version: "0.1.0",
    machine: "2 × AMD EPYC 7B13, 7.7 GiB, Linux 6.1.0, Node v20.20.2",
    startedAt: "2026-03-14T09:26:53.000Z",
    seed,
    options: { users, turns, rounds, "text-tokens": textTokens, shuffle: true },
    warmUp: "one request of 16 tokens to each target, thrown away",
    targets: labels.map(facts),
    samples,
  };
}

interface Question {
  readonly target: (typeof labels)[number];
  readonly round: number;
  readonly user: number;
  readonly turn: number;
  readonly dueMs: number;
  readonly slowness: number;
  readonly random: () => number;
}

function ask({ target, round, user, turn, dueMs, slowness, random }: Question): Sample {
  const skewed = () => Math.exp((random() + random() + random() - 1.5) * 0.5);
  const names = { target, round, id: `user ${user} round ${turn}`, group: `round ${turn}`, checked: turn === 1 };
  const sentMs = dueMs + random() * 2;
  const outcome = outcomeOf(target, random());
  if (outcome !== "ok" && outcome !== "wrong") {
    const error = outcome === "cut" ? "other side closed" : "queue is full: </script><b>try later</b> & wait";
    return { ...names, outcome, dueMs, sentMs, tokenMs: [], endMs: sentMs + 40 * skewed(), error };
  }

  const promptTokens = textTokens + turn * 90;
  const kept =
    target === "reprise" ? (turn > 1 || round > 1 ? promptTokens - 60 : 0) : turn > 1 && user <= 4 ? 2800 : 0;
  const cachedTokens = Math.min(promptTokens - 1, kept);
  const tiers = { memory: Math.round(cachedTokens * (turn > 2 ? 0.8 : 0.3)) };
  const reused = target === "reprise" ? { ...tiers, disk: cachedTokens - tiers.memory } : undefined;
  const firstTokenMs = sentMs + slowness * skewed() * (60 + (promptTokens - cachedTokens) * 0.9 + cachedTokens * 0.012);
  const tokenMs = [firstTokenMs];
  const completionTokens = 24 + Math.floor(random() * 24);
  for (let token = 1; token < completionTokens; token++) tokenMs.push(tokenMs.at(-1)! + slowness * 22 * skewed()); // not empty
  const endMs = tokenMs.at(-1)! + random();
  const answered = { firstTokenMs, tokenMs, endMs, promptTokens, completionTokens, cachedTokens };
  return { ...names, outcome, dueMs, sentMs, ...answered, ...(reused === undefined ? {} : { reused }) };
}

function outcomeOf(target: string, chance: number): Outcome {
  if (target === "reprise") return chance < 0.015 ? "http 429" : "ok";
  if (chance < 0.03) return "http 503";
  if (chance < 0.05) return "cut";
  return chance < 0.06 ? "wrong" : "ok";
}

function facts(label: (typeof labels)[number], index: number): TargetFacts {
  return {
    label,
    url: `http://127.0.0.1:${8080 + index}`,
    model: "notes-0.1B-q8_0.gguf",
    charactersPerToken: 3.9,
    cpuSeconds: 412.7 + index * 390,
    residentBytes: 812_000_000 - index * 200_000_000,
    metricsBefore: label === "reprise" ? { 'reprise_reused_tokens_total{tier="memory"}': 0 } : {},
    metricsAfter: label === "reprise" ? { 'reprise_reused_tokens_total{tier="memory"}': 181_220 } : {},
  };
}
