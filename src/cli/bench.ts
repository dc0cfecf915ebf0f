/** `reprise bench NAME`: measures servers as their clients see them, and prints what came out. */
import { closeSync, openSync, writeFileSync } from "node:fs";
import { samplesCsv } from "../bench/csv.ts";
import { firstLightLines } from "../bench/first-light.ts";
import { metricNames } from "../bench/metrics.ts";
import { benches, parseBenchOptions, runOptions } from "../bench/options.ts";
import { renderReport } from "../bench/report/report.ts";
import type { BenchResult } from "../bench/result.ts";
import { runBench } from "../bench/run-bench.ts";
import { summarize } from "../bench/summary.ts";
import { renderTable } from "../bench/table.ts";
import type { WorkloadOptions } from "../bench/workloads/workload-definition.ts";
import { workloads } from "../bench/workloads.ts";
import { describe, RepriseError } from "../errors.ts";
import { createLog } from "../log.ts";
import type { CommandArguments, CommandOption } from "./command.ts";
import { compareFiles } from "./bench-compare.ts";
import type { Command, CommandVariant } from "./command.ts";
import { showBenchProgress } from "./bench-progress.ts";
import { endRequested } from "./signals.ts";

export const bench: Command = {
  name: "bench",
  summary: "measures OpenAI-compatible servers: times to the first token, rates, reuse, right answers",
  settings: "none",
  options: runOptions,
  variants: {
    compare: {
      summary: "two files of --json as ratios with intervals: reprise bench compare A.json B.json",
      alone: true,
      operands: ["A.json", "B.json"],
      options: {
        "max-ratio": {
          value: "METRIC=1.1",
          help: `Exit 1 when B is above this many times A; of ${metricNames.join(", ")}.`,
          repeated: true,
        },
        "min-ratio": { value: "METRIC=0.9", help: "Exit 1 when B is below this many times A.", repeated: true },
      },
    },
    ...benchVariants(),
  },

  async run(given) {
    if (given.variant !== "compare") return runWorkload(given);
    const [a = "", b = ""] = given.operands; // two, as the variant says
    return compareFiles(a, b, { max: given.repeated["max-ratio"] ?? [], min: given.repeated["min-ratio"] ?? [] });
  },
};

function benchVariants(): Record<string, CommandVariant> {
  return Object.fromEntries(
    Object.entries(benches).map(([name, { summary, options }]) => [
      name,
      { summary, options: { ...shown(options), ...(name === "sweep" ? hidden(optionsOfWorkloads(), options) : {}) } },
    ]),
  );
}

function shown(options: WorkloadOptions): Record<string, CommandOption> {
  return Object.fromEntries(
    Object.entries(options).map(([flag, { value, help, default: fallback }]) => [
      flag,
      { value, help: fallback === "" ? help : `${help} [${fallback}]` },
    ]),
  );
}

/** A sweep takes the options of any workload; which of them fit is seen when its name is known. */
function optionsOfWorkloads(): WorkloadOptions {
  return Object.assign({}, ...Object.values(workloads).map(({ options }) => options)) as WorkloadOptions;
}

function hidden(options: WorkloadOptions, but: WorkloadOptions): Record<string, CommandOption> {
  const others = Object.entries(options).filter(([flag]) => !(flag in but));
  return Object.fromEntries(others.map(([flag, { value, help }]) => [flag, { value, help, hidden: true }]));
}

async function runWorkload({ variant, own, repeated, typed }: CommandArguments): Promise<number> {
  const options = parseBenchOptions(variant, { own, repeated });
  mustBeWritable({ json: options.jsonPath, csv: options.csvPath, report: options.reportPath });
  const stop = new AbortController();
  void endRequested(createLog({ level: "warn" })).then(() => stop.abort());

  const progress = showBenchProgress();
  let result: BenchResult;
  try {
    result = await runBench(options, {
      command: withoutKeys(["reprise", "bench", ...typed].map(shellWord).join(" ")),
      signal: stop.signal,
      onStep: progress.onStep,
      onSample: progress.onSample,
    });
  } finally {
    progress.end();
  }
  if (options.jsonPath !== undefined) writeFileSync(options.jsonPath, `${JSON.stringify(result)}\n`);
  if (options.csvPath !== undefined) writeFileSync(options.csvPath, samplesCsv(result.samples));
  if (options.reportPath !== undefined) writeFileSync(options.reportPath, await renderReport(result));
  process.stdout.write(renderTable(summarize(result)));
  if (result.bench === "first-light")
    process.stdout.write(
      firstLightLines(result)
        .map((line) => `${line}\n`)
        .join(""),
    );
  if (stop.signal.aborted) process.stderr.write("ended early: this is what was measured until then\n");
  return result.samples.some(({ outcome }) => outcome === "ok") ? 0 : 1;
}

/** Looked at before the run: nobody measures for an hour to learn that a folder is missing. What is there stays so far. */
function mustBeWritable(paths: Readonly<Record<string, string | undefined>>): void {
  const faults: string[] = [];
  for (const [flag, path] of Object.entries(paths)) {
    if (path === undefined) continue;
    try {
      closeSync(openSync(path, "a"));
    } catch (error) {
      faults.push(`--${flag} ${path}: ${describe(error)}`);
    }
  }
  if (faults.length > 0) throw new RepriseError("BAD_CONFIG", faults.join("\n"));
}

/** Results are shown around; keys are not, neither ours nor those within a --start, quoted or not. */
function withoutKeys(command: string): string {
  return command.replaceAll(/((?:--(?:api|admin)-key[= ]|REPRISE_(?:API|ADMIN)_KEY=)['"\\]*)[^\s'"\\]+/g, "$1KEY");
}

/** A word as a shell would have it typed. */
function shellWord(word: string): string {
  return /^[\w./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
