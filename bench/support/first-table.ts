/**
 * The first table of docs/benchmarks.md as Markdown, from the results that bench/first-table.sh left in a folder:
 *
 *     node scripts/run-ts.mjs bench/support/first-table.ts DIRECTORY
 *
 * Medians of the time to the first token, their ratio with its 95 % interval, and how much of the prompt was reused, with the
 * tier where a server tells it: a row that is called a memory hit must show that it was one.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { valuesOf } from "../../src/bench/metrics.ts";
import { parseResult } from "../../src/bench/parse-result.ts";
import type { BenchResult, Sample } from "../../src/bench/result.ts";
import { bootstrapRatio, mean, median } from "../../src/bench/statistics.ts";

const [directory = "bench/results"] = process.argv.slice(2);
const [one, two] = ["reprise", "llama-server"] as const;

/** Which result, which of its groups, and what the row is called. */
const rows: readonly (readonly [string, string, string])[] = [
  ["first-light", "cold", "cold"],
  ["first-light", "warm", "the same again (in its sequence)"],
  ["first-light", "after others", "again after four others took the sequences (memory)"],
  ["first-light", "after kill -9", "again after kill -9 of everything and a start"],
  ["first-light", "restarted", "again after an orderly restart (disk)"],
  ...[1, 2, 3, 4].map(
    (round) => ["multi-round-qa", `round ${round}`, `13 users on 4 sequences, round ${round}`] as const,
  ),
  ["agent", "turn 1", "agent whose prompt changes near its top, turn 1"],
  ["agent", "turn 5", "agent whose prompt changes near its top, turn 5"],
  ["rag", "first document new", "retrieval, first document new"],
  ["rag", "first document seen", "retrieval, first document seen"],
];

const results = new Map([...new Set(rows.map(([name]) => name))].map((name) => [name, read(name)]));
const all = [...results.values()];
const lines = [
  "| time to first token, ms | Reprise | llama-server | ratio (95 %) | reused: Reprise | llama-server |",
  "| --- | --- | --- | --- | --- | --- |",
  ...rows.map(([name, group, title]) => row(results.get(name)!, group, title)), // read above
  "",
  ...all.map(({ bench, command }) => `- ${bench}: \`${shortened(command)}\``),
  "",
  `${all.map((result) => rightWords(result)).join("; ")}.`,
  "",
  `${all[0]?.machine}; commit \`${all[0]?.commit.replace(/^(.{8})[^+]*/, "$1")}\`; ${all[0]?.startedAt.slice(0, 10)}.`,
];
process.stdout.write(`${lines.join("\n")}\n`);

function row(result: BenchResult, group: string, title: string): string {
  const of = (target: string) => result.samples.filter((each) => each.target === target && each.group === group);
  const [ours, theirs] = [of(one), of(two)];
  const [a, b] = [valuesOf("ttft", theirs), valuesOf("ttft", ours)];
  const time = (values: readonly number[]) => (values.length === 0 ? "–" : milliseconds(median(values)));
  const cells = [title, time(b), time(a), ratio(a, b), reuse(ours), reuse(theirs)];
  return `| ${cells.join(" | ")} |`;
}

function ratio(a: readonly number[], b: readonly number[]): string {
  if (a.length === 0 || b.length === 0) return "–";
  const { ratio, low, high } = bootstrapRatio(a, b, { centre: "median", seed: 1 });
  return `${ratio.toFixed(2)} (${low.toFixed(2)} – ${high.toFixed(2)})`;
}

/** The share that was reused, and the tier that gave most of it. */
function reuse(samples: readonly Sample[]): string {
  const shares = valuesOf("reused", samples);
  if (shares.length === 0) return "–";
  const tiers = new Map<string, number>();
  for (const { reused } of samples) {
    for (const [tier, tokens] of Object.entries(reused ?? {})) tiers.set(tier, (tiers.get(tier) ?? 0) + tokens);
  }
  const [most] = [...tiers].filter(([, tokens]) => tokens > 0).toSorted(([, x], [, y]) => y - x);
  return `${(100 * mean(shares)).toFixed(0)} %${most === undefined ? "" : ` ${most[0]}`}`;
}

function rightWords({ bench, samples }: BenchResult): string {
  const words = [one, two].map((target) => {
    const own = samples.filter((sample) => sample.target === target);
    const checked = own.filter((sample) => sample.checked);
    const failed = own.filter(({ outcome }) => outcome !== "ok" && outcome !== "wrong").length;
    const right = checked.filter(({ outcome }) => outcome === "ok").length;
    return `${target} ${right} of ${checked.length} checked answers right, ${failed} of ${own.length} requests failed`;
  });
  return `${bench}: ${words.join(", ")}`;
}

function milliseconds(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}

/** Without the servers, which are the same for all and stand in bench/first-table.sh. */
function shortened(command: string): string {
  return command.replace(/ --url .*/, "");
}

function read(name: string): BenchResult {
  const path = join(directory, `table-${name}.json`);
  return parseResult(readFileSync(path, "utf8"), path);
}
