/** The samples as CSV (RFC 4180), one line each, for spreadsheets and notebooks. */
import type { Sample } from "./result.ts";

const columns: Readonly<Record<string, (sample: Sample) => string | number | boolean | undefined>> = {
  target: ({ target }) => target,
  round: ({ round }) => round,
  id: ({ id }) => id,
  group: ({ group }) => group,
  outcome: ({ outcome }) => outcome,
  due_ms: ({ dueMs }) => dueMs,
  sent_ms: ({ sentMs }) => sentMs,
  first_token_ms: ({ firstTokenMs }) => firstTokenMs,
  end_ms: ({ endMs }) => endMs,
  pieces: ({ tokenMs }) => tokenMs.length,
  prompt_tokens: ({ promptTokens }) => promptTokens,
  completion_tokens: ({ completionTokens }) => completionTokens,
  cached_tokens: ({ cachedTokens }) => cachedTokens,
  reused: ({ reused }) => (reused === undefined ? undefined : JSON.stringify(reused)),
  checked: ({ checked }) => checked,
  error: ({ error }) => error,
};

export function samplesCsv(samples: readonly Sample[]): string {
  const rows = samples.map((sample) => Object.values(columns).map((value) => cell(value(sample))));
  return [Object.keys(columns), ...rows].map((row) => `${row.join(",")}\r\n`).join("");
}

function cell(value: string | number | boolean | undefined): string {
  if (typeof value === "number") return String(Math.round(value * 1000) / 1000); // microseconds
  const text = value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
