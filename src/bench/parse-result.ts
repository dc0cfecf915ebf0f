/** Reads a `BenchResult` that was written to a file, strictly: what is not one is refused with the place of the fault. */
import * as v from "valibot";
import { RepriseError } from "../errors.ts";
import type { BenchResult, Outcome, Sample } from "./result.ts";

/**
 * @param name what the text is called in messages: the file's path.
 * @throws RepriseError BAD_REQUEST with the first faults and their places.
 */
export function parseResult(text: string, name: string): BenchResult {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new RepriseError("BAD_REQUEST", `${name} is not JSON; expected a file of \`reprise bench --json\``, {
      cause: error,
    });
  }
  const parsed = v.safeParse(resultSchema, json);
  const faults = parsed.success ? faultsBetweenFields(parsed.output) : parsed.issues.map(placed);
  if (!parsed.success || faults.length > 0) {
    const more = faults.length > shownFaults ? `\n  and ${faults.length - shownFaults} more` : "";
    const list = faults.slice(0, shownFaults).map((fault) => `\n  ${fault}`);
    throw new RepriseError(
      "BAD_REQUEST",
      `${name} is not a benchmark result of format 1; write one with \`reprise bench --json\`:${list.join("")}${more}`,
    );
  }
  return parsed.output;
}

const shownFaults = 5;

const finite = v.pipe(v.number(), v.finite());
const time = v.pipe(finite, v.minValue(0));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const outcome = v.custom<Outcome>(
  (value) => typeof value === "string" && /^(?:ok|wrong|cut|stalled|unreachable|http [1-5]\d\d)$/.test(value),
  (issue) => `${issue.received} is no outcome: ok, wrong, cut, stalled, unreachable or "http STATUS"`,
);

const sampleSchema = v.strictObject({
  target: v.string(),
  round: count,
  id: v.string(),
  group: v.string(),
  outcome,
  dueMs: time,
  sentMs: time,
  firstTokenMs: v.exactOptional(time),
  tokenMs: v.array(time),
  endMs: time,
  promptTokens: v.exactOptional(count),
  completionTokens: v.exactOptional(count),
  cachedTokens: v.exactOptional(count),
  reused: v.exactOptional(v.record(v.string(), count)),
  checked: v.boolean(),
  error: v.exactOptional(v.string()),
});

const targetSchema = v.strictObject({
  label: v.string(),
  url: v.string(),
  model: v.string(),
  charactersPerToken: v.pipe(finite, v.gtValue(0)),
  cpuSeconds: v.exactOptional(time),
  residentBytes: v.exactOptional(count),
  metricsBefore: v.record(v.string(), v.number()),
  metricsAfter: v.record(v.string(), v.number()),
});

const resultSchema: v.GenericSchema<unknown, BenchResult> = v.strictObject({
  format: v.literal(1),
  bench: v.string(),
  command: v.string(),
  commit: v.string(),
  version: v.string(),
  machine: v.string(),
  startedAt: v.pipe(v.string(), v.isoTimestamp()),
  seed: v.pipe(v.number(), v.safeInteger()),
  options: v.record(v.string(), v.union([v.string(), finite, v.boolean()])),
  warmUp: v.string(),
  targets: v.array(targetSchema),
  samples: v.array(sampleSchema),
});

function placed(issue: v.BaseIssue<unknown>): string {
  return `${v.getDotPath(issue) ?? "the whole"}: ${issue.message}`;
}

/** What no single field shows: names that must agree, and times that must ascend. */
function faultsBetweenFields({ targets, samples }: BenchResult): string[] {
  const labels = new Set(targets.map(({ label }) => label));
  const faults = labels.size === targets.length ? [] : ["targets: two have the same label"];
  for (const [index, sample] of samples.entries()) {
    if (!labels.has(sample.target)) faults.push(`samples.${index}.target: no target is called "${sample.target}"`);
    if (!ascends(sample)) faults.push(`samples.${index}: its times do not follow each other`);
  }
  return faults;
}

function ascends({ sentMs, firstTokenMs, tokenMs, endMs }: Sample): boolean {
  const times = [sentMs, ...(firstTokenMs === undefined ? [] : [firstTokenMs]), ...tokenMs, endMs];
  return times.every((time, index) => index === 0 || time >= times[index - 1]!); // index - 1 is within
}
