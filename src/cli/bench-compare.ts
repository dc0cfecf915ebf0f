/** `reprise bench compare A.json B.json`: two results as a table of ratios, and a gate for builds. */
import { readFile } from "node:fs/promises";
import { breaches, compare, type ComparedMetric, parseLimits } from "../bench/compare.ts";
import { metrics } from "../bench/metrics.ts";
import { parseResult } from "../bench/parse-result.ts";
import type { BenchResult } from "../bench/result.ts";
import { textTable } from "../bench/text-table.ts";
import { RepriseError } from "../errors.ts";

/**
 * Prints the comparison of two files of `reprise bench --json` to standard output.
 *
 * @param typed texts `METRIC=LIMIT`, as typed after each `--max-ratio` and `--min-ratio`.
 * @returns the exit code: 1 when a ratio is outside of its limit, or B has no value of a limited metric where A has one;
 *   each such case is named on standard error.
 * @throws RepriseError BAD_REQUEST for a file or a limit that cannot be used.
 */
export async function compareFiles(
  pathA: string,
  pathB: string,
  typed: { readonly max: readonly string[]; readonly min: readonly string[] },
): Promise<number> {
  const limits = parseLimits(typed);
  const comparison = compare(await readResult(pathA), await readResult(pathB));
  const outside = breaches(comparison, limits);
  const lost = comparison.lost.filter(({ metric }) => limits.max.has(metric) || limits.min.has(metric));

  process.stdout.write(`A: ${pathA}\nB: ${pathB}\n\n${table(comparison.rows)}\n`);
  for (const note of comparison.notes) process.stdout.write(`note: ${note}\n`);
  for (const { target, group, metric, ratio, side, limit } of outside) {
    process.stderr.write(
      `${target}, ${group}: ${metric} is ${ratioText(ratio)} times A's, ${side} the limit of ${limit}\n`,
    );
  }
  for (const { target, group, metric } of lost) {
    process.stderr.write(`${target}, ${group}: ${metric} has a limit, and B has no value of it\n`);
  }
  return outside.length === 0 && lost.length === 0 ? 0 : 1;
}

async function readResult(path: string): Promise<BenchResult> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw new RepriseError("BAD_REQUEST", `${path} cannot be read`, { cause: error });
  }
  return parseResult(text, path);
}

/** Names to the left, numbers to the right; n are the requests of A and B. */
function table(rows: readonly ComparedMetric[]): string {
  const head = ["target", "group", "metric", "A", "B", "B/A", "95 % interval", "n"];
  const lines = rows.map((row) => [
    row.target,
    row.group,
    `${row.metric} ${metrics[row.metric].centre}`,
    valueText(row.a, row),
    valueText(row.b, row),
    ratioText(row.ratio),
    `${ratioText(row.low)} – ${ratioText(row.high)}`,
    `${row.countA}, ${row.countB}`,
  ]);
  return textTable(head, lines, 3);
}

function valueText(value: number, { metric }: ComparedMetric): string {
  const { unit } = metrics[metric];
  if (unit === "share") return `${(value * 100).toFixed(1)} %`;
  return `${value.toFixed(unit === "ms" && value >= 100 ? 0 : 1)} ${unit === "ms" ? "ms" : "t/s"}`;
}

function ratioText(ratio: number): string {
  if (Number.isNaN(ratio)) return "0/0";
  return Number.isFinite(ratio) ? ratio.toFixed(3) : "from 0";
}
