/** The summary as a table for a terminal: one line per target and group, figures aligned at the right. */
import type { GroupSummary } from "./summary.ts";
import { textTable } from "./text-table.ts";

interface Column {
  readonly title: string;
  readonly left?: true;
  readonly text: (line: GroupSummary) => string;
}

const columns: readonly Column[] = [
  { title: "target", left: true, text: ({ target }) => target },
  { title: "group", left: true, text: ({ group }) => group },
  { title: "ok", text: ({ outcomes, count }) => `${outcomes.ok ?? 0}/${count}` },
  { title: "TTFT ms mean", text: ({ firstToken }) => figure(firstToken?.mean) },
  { title: "p50", text: ({ firstToken }) => figure(firstToken?.p50) },
  { title: "p90", text: ({ firstToken }) => figure(firstToken?.p90) },
  { title: "p99", text: ({ firstToken }) => figure(firstToken?.p99) },
  { title: "gap ms mean", text: ({ gap }) => figure(gap?.mean) },
  { title: "p50", text: ({ gap }) => figure(gap?.p50) },
  { title: "p90", text: ({ gap }) => figure(gap?.p90) },
  { title: "p99", text: ({ gap }) => figure(gap?.p99) },
  { title: "end ms mean", text: ({ endToEnd }) => figure(endToEnd?.mean) },
  { title: "p50", text: ({ endToEnd }) => figure(endToEnd?.p50) },
  { title: "p90", text: ({ endToEnd }) => figure(endToEnd?.p90) },
  { title: "p99", text: ({ endToEnd }) => figure(endToEnd?.p99) },
  { title: "out tok/s", text: (line) => figure(line.outputTokensPerSecond) },
  { title: "in tok/s", text: (line) => figure(line.inputTokensPerSecond) },
  { title: "reused", text: ({ cachedShare }) => share(cachedShare) },
  { title: "right", text: ({ rightShare }) => share(rightShare) },
  { title: "lag ms p99", text: ({ clientLagP99Ms }) => figure(clientLagP99Ms) },
];

/** The table, and below it what went wrong and which tiers the reused tokens came from, line by line. */
export function renderTable(lines: readonly GroupSummary[]): string {
  const rows = lines.map((line) => columns.map(({ text }) => text(line)));
  const words = columns.filter(({ left }) => left).length;
  const table = textTable(
    columns.map(({ title }) => title),
    rows,
    words,
  );
  return [table.trimEnd(), ...lines.flatMap(notes), ""].join("\n");
}

function notes(line: GroupSummary): string[] {
  const failures = Object.entries(line.outcomes).filter(([outcome]) => outcome !== "ok");
  const errors = new Map(Object.entries(line.errors));
  const failed = failures.map(([name, count]) => `${count} ${name}${errors.has(name) ? ` (${errors.get(name)})` : ""}`);
  const reused = Object.entries(line.reused).flatMap(([tier, tokens]) =>
    tokens > 0 ? [`${tokens} from ${tier}`] : [],
  );
  return [
    ...(failed.length === 0 ? [] : [`${line.target}, ${line.group}: ${failed.join(", ")}`]),
    ...(reused.length === 0 ? [] : [`${line.target}, ${line.group}: reused ${reused.join(", ")}`]),
  ];
}

/** Three digits that matter. */
export function figure(value: number | undefined): string {
  if (value === undefined) return "-";
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
}

function share(value: number | undefined): string {
  return value === undefined ? "-" : `${(100 * value).toFixed(1)} %`;
}
