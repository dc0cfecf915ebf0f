/** The report's tables: what was run, and what came out per target and group. */
import { groupsOf, isTimed, type MetricName, metrics, throughput, valuesOf } from "../metrics.ts";
import type { BenchResult, Sample, TargetFacts } from "../result.ts";
import { mean, median, percentile } from "../statistics.ts";
import { hasTotal } from "../summary.ts";
import { escapeHtml, htmlTable } from "./html.ts";

/** All that is needed to run it again, and what may have disturbed it. */
export function factsTable(result: BenchResult): string {
  const options = Object.entries(result.options).map(([name, value]) => `${name} ${value}`);
  const lags = result.samples.map(({ sentMs, dueMs }) => sentMs - dueMs);
  const facts: (readonly [string, string])[] = [
    ["Command", `<code>${escapeHtml(result.command)}</code>`],
    ["Started", escapeHtml(result.startedAt)],
    ["Machine", escapeHtml(result.machine)],
    ["Reprise", `${escapeHtml(result.version)}, commit <code>${escapeHtml(result.commit)}</code>`],
    ["Seed", String(result.seed)],
    ["Options", escapeHtml(options.join(", ") || "none")],
    ["Warm-up", escapeHtml(result.warmUp)],
  ];
  if (lags.length > 0) {
    const late = `${milliseconds(percentile(lags, 0.99))} at the 99th percentile, ${milliseconds(percentile(lags, 1))} at most`;
    facts.push(["Client's lag", `${late}; not part of any time below`]);
  }
  return `<dl class="facts">${facts.map(([name, value]) => `<dt>${name}</dt><dd>${value}</dd>`).join("\n")}</dl>`;
}

export function targetsTable(targets: readonly TargetFacts[]): string {
  const rows = targets.map((target) => [
    escapeHtml(target.label),
    escapeHtml(target.model),
    escapeHtml(target.url),
    target.charactersPerToken.toFixed(2),
    target.cpuSeconds === undefined ? unknown : `${target.cpuSeconds.toFixed(1)} s`,
    target.residentBytes === undefined ? unknown : `${(target.residentBytes / 2 ** 20).toFixed(0)} MiB`,
  ]);
  return htmlTable(["Target", "Model", "URL", "Characters/token", "Processor time", "Resident, at most"], rows);
}

/** Groups below each other and targets side by side within them; the last rows are of all groups, where that says something. */
export function summaryTable(result: BenchResult): string {
  const { targets, samples } = result;
  const rows = [...groupsOf(samples), ...(hasTotal(result) ? [undefined] : [])].flatMap((group) =>
    targets.flatMap(({ label }) => {
      const counted = samples.filter((sample) => sample.target === label && (group ?? sample.group) === sample.group);
      return counted.length === 0 ? [] : [summaryRow([group ?? "all", label], counted)];
    }),
  );
  const times = ["TTFT p50", "TTFT p95", "Gap p50", "End to end p50", "End to end p95"];
  return htmlTable(["Group", "Target", "Requests", "Failed", ...times, "Tokens/s", "Reused", "Right"], rows);
}

function summaryRow(names: readonly string[], samples: readonly Sample[]): string[] {
  const failed = samples.filter((sample) => !isTimed(sample)).length;
  const tokensPerSecond = throughput(samples);
  const time = (metric: MetricName, share: number) => {
    const values = valuesOf(metric, samples);
    return values.length === 0 ? unknown : milliseconds(share === 0.5 ? median(values) : percentile(values, share));
  };
  const share = (metric: MetricName) => {
    const values = valuesOf(metric, samples);
    return values.length === 0 ? unknown : percent(mean(values));
  };
  return [
    ...names.map(escapeHtml),
    String(samples.length),
    failed === 0 ? "0" : `<strong class="bad">${failed}</strong>`,
    time("ttft", 0.5),
    time("ttft", 0.95),
    time("itl", 0.5),
    time("e2e", 0.5),
    time("e2e", 0.95),
    tokensPerSecond === undefined ? unknown : tokensPerSecond.toFixed(1),
    share("reused"),
    share("right"),
  ];
}

/** What servers said when they refused, the most frequent first. */
export function errorTexts({ samples }: BenchResult): string {
  const counts = new Map<string, number>();
  for (const { target, outcome, error } of samples) {
    if (error === undefined) continue;
    const row = [target, outcome, error].map(escapeHtml).join("</td><td>");
    counts.set(row, (counts.get(row) ?? 0) + 1);
  }
  if (counts.size === 0) return "";
  const rows = [...counts].toSorted(([, a], [, b]) => b - a).map(([row, count]) => [String(count), row]);
  const left = rows.length > shownTexts ? `<p>${rows.length - shownTexts} more kinds of text are left out.</p>` : "";
  return htmlTable(["Times", "Target", "Outcome", "Text"], rows.slice(0, shownTexts)) + left;
}

const shownTexts = 20;

/** What each metric means, in the words of their table. */
export function metricWords(): string {
  const reduced = Object.entries(metrics).map(
    ([name, { title, centre }]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(title)}; ${centre} over requests</dd>`,
  );
  return `<dl class="facts">${reduced.join("\n")}</dl>`;
}

const unknown = "–";

function milliseconds(value: number): string {
  return `${value.toFixed(value >= 100 ? 0 : 1)} ms`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
