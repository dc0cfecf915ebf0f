/** The options of `reprise bench`: one table, and what was typed made into one checked value. */
import { describe, RepriseError } from "../errors.ts";
import { firstLightOptions, firstLightSummary, readFirstLight } from "./first-light.ts";
import { type Load, parseLoads, sweepOptions, sweepSummary } from "./sweep.ts";
import type { TargetOptions } from "./target.ts";
import { splitWords } from "./words.ts";
import type { WorkloadOptions } from "./workloads/workload-definition.ts";
import { workloads } from "./workloads.ts";

/** Options of every workload, by flag name. A workload's own stand beside them. */
export const runOptions = {
  url: { value: "URL", help: "A server to measure; may be given several times.", repeated: true },
  label: { value: "NAME", help: "Names for the URLs, in their order. [host:port]", repeated: true },
  "api-key": { value: "KEY", help: "API key of the servers: one for all, or one for each URL.", repeated: true },
  "admin-key": {
    value: "KEY",
    help: "Key for the figures (/metrics), if --api-key may not read them: one for all, or one for each URL.",
    repeated: true,
  },
  start: {
    value: "COMMAND",
    help: 'Command that starts the server of each URL, in their order, without a shell; it is ended afterwards. "" starts none.',
    repeated: true,
  },
  rounds: {
    value: "N",
    help: "How often every server is measured. Servers take turns, in reversed order every other round. [1]",
  },
  time: { value: "SECONDS", help: "Time per server and round (or step) in which requests may begin. [300]" },
  seed: { value: "N", help: "The same seed makes the same texts; round n has seed + n. [1]" },
  "warm-up": { value: "N", help: "Short requests to every server before the first round, not counted. [1]" },
  "stall-timeout": { value: "SECONDS", help: "Longest silence of a server before a request counts as stalled. [120]" },
  json: { value: "FILE", help: "Write the whole result: every sample, and what is needed to repeat the run." },
  csv: { value: "FILE", help: "Write one line per sample." },
  report: { value: "FILE.html", help: "Write a page with facts, table and plots that opens offline." },
} as const;

/** Everything that can be asked for by name, and the options that only it has. */
export const benches: Readonly<Record<string, { readonly summary: string; readonly options: WorkloadOptions }>> = {
  ...workloads,
  "first-light": { summary: firstLightSummary, options: firstLightOptions },
  sweep: { summary: sweepSummary, options: sweepOptions },
};

export interface BenchOptions {
  /** As it was asked for: a workload, or "first-light", or "sweep". */
  readonly bench: string;
  /** The workload that is run: of a sweep the one that it is of. */
  readonly workload: string;
  /** The steps of a sweep, in their order; else empty. */
  readonly loads: readonly Load[];
  /** The workload's own options, defaults filled in. */
  readonly workloadOptions: Readonly<Record<string, string>>;
  readonly targets: readonly TargetOptions[];
  readonly rounds: number;
  readonly timeSeconds: number;
  readonly seed: number;
  readonly warmUp: number;
  readonly stallSeconds: number;
  readonly jsonPath: string | undefined;
  readonly csvPath: string | undefined;
  readonly reportPath: string | undefined;
}

/** What was typed: options with one value, and those that may be repeated. */
export interface TypedOptions {
  readonly own: Readonly<Record<string, string>>;
  readonly repeated: Readonly<Record<string, readonly string[]>>;
}

/** @throws RepriseError BAD_CONFIG listing every fault. */
export function parseBenchOptions(bench: string, { own, repeated }: TypedOptions): BenchOptions {
  const faults: string[] = [];
  const workload = bench === "sweep" ? (own["of"] ?? sweepOptions["of"]?.default ?? "") : bench;
  const known = bench === "first-light" ? firstLightOptions : workloads[workload]?.options;
  if (known === undefined) {
    const names = Object.keys(bench === "sweep" ? workloads : benches);
    throw new RepriseError("BAD_CONFIG", `no workload is called "${workload}"; there are: ${names.join(", ")}`);
  }
  const number = (name: keyof typeof runOptions, fallback: number, limits: NumberLimits) =>
    parseNumber(name, own[name], fallback, limits, faults);
  const stallSeconds = number("stall-timeout", 120, { least: 0.001, most: 86_400 });
  const options: BenchOptions = {
    bench,
    workload,
    loads: bench === "sweep" ? parseLoads(own, faults) : [],
    workloadOptions: workloadOptions(bench, known, own, faults),
    targets: parseTargets(repeated, { bench, stallMs: stallSeconds * 1000 }, faults),
    rounds: number("rounds", 1, { least: 1, most: 1000, whole: true }),
    timeSeconds: number("time", 300, { least: 0.001, most: 7 * 86_400 }),
    seed: number("seed", 1, { least: 0, most: 2 ** 31 - 1, whole: true }),
    warmUp: number("warm-up", 1, { least: 0, most: 1000, whole: true }),
    stallSeconds,
    jsonPath: own["json"],
    csvPath: own["csv"],
    reportPath: own["report"],
  };
  if (faults.length > 0) throw new RepriseError("BAD_CONFIG", faults.join("\n"));
  if (bench === "first-light") readFirstLight(options.workloadOptions);
  return options;
}

/** The workload's options with their defaults. A sweep's own have another meaning, and stand in the steps. */
function workloadOptions(
  bench: string,
  known: WorkloadOptions,
  own: TypedOptions["own"],
  faults: string[],
): Record<string, string> {
  const taken = bench === "sweep" ? sweepOptions : {};
  const general: object = runOptions;
  for (const name of Object.keys(own)) {
    if (name in known || name in taken || name in general) continue;
    faults.push(`--${name} is no option of ${bench === "sweep" ? own["of"] : bench}`);
  }
  return Object.fromEntries(
    Object.entries(known)
      .filter(([name]) => !(name in taken))
      .map(([name, option]) => [name, own[name] ?? option.default]),
  );
}

/** None for first-light is its own server. */
function parseTargets(
  repeated: TypedOptions["repeated"],
  { bench, stallMs }: { bench: string; stallMs: number },
  faults: string[],
): TargetOptions[] {
  const { url: urls = [], label: labels = [], start: commands = [] } = repeated;
  const { "api-key": apiKeys = [], "admin-key": adminKeys = [] } = repeated;
  const mustRestart = bench === "first-light";
  if (urls.length === 0 && !mustRestart) faults.push("--url is required, such as --url http://127.0.0.1:8080");
  const keys = { "api-key": apiKeys, "admin-key": adminKeys };
  for (const [name, given] of Object.entries({ label: labels, ...keys, start: commands })) {
    if (given.length > urls.length) faults.push(`--${name} is given ${given.length} times, --url ${urls.length} times`);
  }
  for (const [name, given] of Object.entries(keys)) {
    if (given.length <= 1 || given.length >= urls.length) continue;
    faults.push(`--${name}: give one for all, or one for each --url`);
  }

  const targets = urls.map((typed, index): TargetOptions => {
    const address = parseAddress(typed, faults);
    const start = commands[index] === "" ? undefined : commands[index];
    if (start !== undefined) checkWords(start, faults);
    else if (mustRestart) faults.push(`first-light kills and restarts its servers: give --start for ${typed}`);
    return {
      label: labels[index] ?? address?.host ?? typed,
      url: address?.origin ?? typed,
      apiKey: apiKeys.length === 1 ? apiKeys[0] : apiKeys[index],
      adminKey: adminKeys.length === 1 ? adminKeys[0] : adminKeys[index],
      start,
      stallMs,
    };
  });
  const names = targets.map(({ label }) => label);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) faults.push(`two servers are called "${twice}": give each a --label of its own`);
  return targets;
}

function parseAddress(typed: string, faults: string[]): URL | undefined {
  const address = URL.canParse(typed) ? new URL(typed) : undefined;
  if (address !== undefined && /^https?:$/.test(address.protocol) && /^\/?$/.test(address.pathname + address.search)) {
    return address;
  }
  faults.push(`--url: "${typed}" is not an address such as http://127.0.0.1:8080, without a path`);
  return undefined;
}

function checkWords(command: string, faults: string[]): void {
  try {
    if (splitWords(command).length === 0) faults.push("--start needs a command");
  } catch (error) {
    faults.push(`--start: ${describe(error)}`);
  }
}

interface NumberLimits {
  readonly least: number;
  readonly most: number;
  readonly whole?: true;
}

function parseNumber(
  name: string,
  typed: string | undefined,
  fallback: number,
  { least, most, whole }: NumberLimits,
  faults: string[],
): number {
  if (typed === undefined) return fallback;
  const value = /^\d+(\.\d+)?$/.test(typed) ? Number(typed) : Number.NaN;
  if (value >= least && value <= most && !(whole && !Number.isInteger(value))) return value;
  faults.push(`--${name}: "${typed}" is not a ${whole ? "whole " : ""}number from ${least} to ${most}`);
  return fallback;
}
