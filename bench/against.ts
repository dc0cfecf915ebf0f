/**
 * Is this checkout as fast as another one? Both are measured by turns in one run, each by its own programs.
 *
 *     npm run bench -- against ../other-checkout [--rounds 5] [--first-light-rounds 9] [--python PYTHON]
 *                                                [--only lookup,radix,pool,disk,start-up,hooks,first-answer,first-light]
 *
 * `lookup`: a 32,000-token prompt, in process and through the socket. `radix`: such a prompt put into a full index. `pool`:
 * copies into and out of slots. `disk`: records written and read. `start-up`: a cache over 200,000 chunks. `hooks`: what vLLM's thread spends in our hooks, where
 * nothing is read again and in steps that only decode; needs a Python with vLLM for the CPU in it, and the package of each
 * checkout is put before the installed one. `first-answer`: from `npm start` in a fresh clone of the checkout's head, dependencies
 * and build included, to the whole answer to a first short prompt. `first-light`: cold, warm, after kill -9, restarted, from an HTTP client.
 *
 * One JSON line: of each figure the medians of both and the median of the rounds' ratios (this / other). The other checkout
 * must have been built (`npm test` or `npm start` once).
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { BenchResult } from "../src/bench/result.ts";
import { median } from "../src/bench/statistics.ts";
import { repositoryRoot } from "../test/support/repository.ts";
import { printLine, rounded } from "./support/timing.ts";

type Figures = Readonly<Record<string, number>>;
/** One round of one checkout, by its own programs. */
type Measure = (checkout: string) => Figures | Promise<Figures>;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "5" },
    only: { type: "string", default: "lookup,radix,pool,disk,start-up,hooks,first-answer,first-light" },
    python: { type: "string", default: "python3" },
    "first-light-rounds": { type: "string", default: "9" },
  },
});
const [otherGiven] = positionals;
if (otherGiven === undefined) throw new Error("usage: npm run bench -- against OTHER_CHECKOUT");
const other = resolve(otherGiven);
const rounds = Number(values.rounds);
const wanted = values.only.split(",");

const measures: Readonly<Record<string, Measure>> = {
  lookup: microBench("lookup", [], {
    "lookup in process, us": "inProcess.p50Us",
    "lookup through the socket, us": "throughSocket.p50Us",
  }),
  radix: microBench("radix-insert", [], {
    "radix insert, us": "unshared.p50Us",
    "half shared, us": "halfShared.p50Us",
  }),
  pool: microBench("pool-copy", [], {
    "into the pool, ms/GB": "1000/intoPoolGBps",
    "out of it, ms/GB": "1000/outOfPoolGBps",
  }),
  disk: microBench("disk", ["--bytes", "64MiB", "--rounds", "1"], {
    "disk read, ms/GB": "1000000/load.MBps",
    "disk read, processor s/GiB": "load.cpuSecondsPerGiB",
    "disk write, ms/GB": "1000000/writeBehind.MBps",
    "disk write, processor s/GiB": "writeBehind.cpuSecondsPerGiB",
  }),
  "start-up": microBench("start-up", ["--chunks", "200000"], {
    "start-up serves, ms": "servesMs",
    "start-up knows all records, ms": "recordsKnownMs",
    "start-up has all back, ms": "everythingIsBackMs",
  }),
  hooks,
  "first-answer": firstAnswer,
};
const figures: Record<string, object> = {};
for (const [name, measure] of Object.entries(measures)) {
  if (wanted.includes(name)) Object.assign(figures, await byTurns(measure));
}
if (wanted.includes("first-light")) Object.assign(figures, firstLight());
printLine("against", figures, { rounds, firstLightRounds: Number(values["first-light-rounds"]), other: headOf(other) });

/** Ours first in even rounds, theirs in odd ones. */
async function byTurns(measure: Measure): Promise<Record<string, object>> {
  const ours: Figures[] = [];
  const theirs: Figures[] = [];
  for (let round = 0; round < rounds; round += 1) {
    if (round % 2 === 1) theirs.push(await measure(other));
    ours.push(await measure(repositoryRoot));
    if (round % 2 === 0) theirs.push(await measure(other));
  }
  return Object.fromEntries(
    Object.keys(ours[0] ?? {}).map((name) => [
      name,
      compared(
        ours.map((each) => each[name] ?? Number.NaN),
        theirs.map((each) => each[name] ?? Number.NaN),
      ),
    ]),
  );
}

function compared(ours: readonly number[], theirs: readonly number[]): object {
  const ratios = ours.map((each, round) => each / (theirs[round] ?? Number.NaN));
  return {
    ours: rounded(median(ours)),
    other: rounded(median(theirs)),
    ratio: rounded(median(ratios)),
    ratios: ratios.map(rounded),
  };
}

/** One of bench/, and which of its figures count: where each lies, or what is divided by it, as a rate becomes a time. */
function microBench(name: string, words: readonly string[], wantedFigures: Readonly<Record<string, string>>): Measure {
  return (checkout) => {
    const line = json(run(checkout, process.execPath, ["scripts/run-ts.mjs", `bench/${name}.ts`, ...words])) as {
      figures: unknown;
    };
    const figure = (path: string) => {
      let at: unknown = line.figures;
      for (const key of path.split(".")) at = (at as Readonly<Record<string, unknown>>)[key]; // as that bench prints it
      return Number(at);
    };
    return Object.fromEntries(
      Object.entries(wantedFigures).map(([label, path]) => {
        const [first = "", second] = path.split("/");
        return [label, second === undefined ? figure(first) : Number(first) / figure(second)];
      }),
    );
  };
}

function hooks(checkout: string): Figures {
  const env = { ...process.env, PYTHONPATH: join(checkout, "python") };
  const noReuse = json(run(checkout, values.python, ["python/bench/no_reuse_hooks.py"], env)) as {
    us_per_request: number;
    us_per_step: number;
  };
  const decode = json(run(checkout, values.python, ["python/bench/decode_hooks.py"], env)) as {
    reprise_hot_us: number;
    reprise_paced_us: number;
  };
  return {
    "hooks without reuse, us a request": noReuse.us_per_request,
    "hooks without reuse, us a step": noReuse.us_per_step,
    "hooks of a decode step, hot, us": decode.reprise_hot_us,
    "hooks of a decode step, paced, us": decode.reprise_paced_us,
  };
}

/** What somebody waits who has just cloned the repository and types `npm start`. */
async function firstAnswer(checkout: string): Promise<Figures> {
  const folder = mkdtempSync(join(tmpdir(), "reprise-first-answer-"));
  const clone = join(folder, "clone");
  run(folder, "git", ["clone", "--quiet", checkout, clone]);
  const port = "18083";
  const settings = ["--port", port, "--data-dir", join(folder, "data"), "--memory", "1GiB", "--disk", "4GiB"];
  const startedMs = performance.now();
  const server = spawn("npm", ["start", "--", ...settings], { cwd: clone, detached: true, stdio: "ignore" });
  try {
    while (!(await answers(port))) {
      if (server.exitCode !== null) throw new Error(`npm start of ${checkout} ended with ${server.exitCode}`);
      await setTimeout(20);
    }
    return { "first answer of npm start, ms": performance.now() - startedMs };
  } finally {
    if (server.exitCode === null) {
      process.kill(-(server.pid ?? Number.NaN), "SIGTERM"); // npm and all that it started
      await once(server, "exit");
    }
    rmSync(folder, { recursive: true });
  }
}

async function answers(port: string): Promise<boolean> {
  const api = `http://127.0.0.1:${port}/v1`;
  try {
    const models = await fetch(`${api}/models`);
    if (models.status === 503) return false; // the model is loading
    const { data } = (await models.json()) as { data: readonly { id: string }[] }; // of OpenAI's form
    const messages = [{ role: "user", content: "Hello" }];
    const body = JSON.stringify({ model: data[0]?.id, max_tokens: 4, messages });
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${api}/chat/completions`, { method: "POST", headers, body });
    await response.text();
    if (response.ok || response.status === 503) return response.ok;
    throw new Error(`the first request was answered with ${response.status}`);
  } catch (error) {
    if (error instanceof TypeError) return false; // nobody listens yet
    throw error;
  }
}

/** One run of `reprise bench first-light` with both servers, which takes the turns itself. */
function firstLight(): Record<string, object> {
  const folder = mkdtempSync(join(tmpdir(), "reprise-against-"));
  const file = join(folder, "result.json");
  const server = (checkout: string, port: number) => [
    "--url",
    `http://127.0.0.1:${port}`,
    "--label",
    checkout === other ? "other" : "ours",
    "--start",
    `node ${join(checkout, "dist/cli/main.js")} serve --port ${port} --data-dir ${join(folder, String(port))} --memory 1GiB --disk 4GiB`,
  ];
  const servers = [...server(repositoryRoot, 18_081), ...server(other, 18_082)];
  const bench = ["bench", "first-light", "--rounds", values["first-light-rounds"], "--time", "1200", "--json", file];
  run(repositoryRoot, process.execPath, ["dist/cli/main.js", ...bench, ...servers]);
  const { samples } = JSON.parse(readFileSync(file, "utf8")) as BenchResult; // our own --json
  rmSync(folder, { recursive: true });
  const of = (target: string, wantedGroup: string) =>
    samples
      .filter((each) => each.target === target && each.group === wantedGroup)
      .map(({ firstTokenMs, sentMs }) => (firstTokenMs ?? Number.NaN) - sentMs);
  const groups = [...new Set(samples.map(({ group }) => group))].filter((group) => group !== "others");
  return Object.fromEntries(
    groups.map((group) => [`first-light ${group}, ms`, compared(of("ours", group), of("other", group))]),
  );
}

function run(checkout: string, program: string, words: readonly string[], env = process.env): string {
  const done = spawnSync(program, words, {
    cwd: checkout,
    env,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1 << 26,
  });
  if (done.status !== 0) throw new Error(`${program} ${words.join(" ")} in ${checkout} ended with ${done.status}`);
  return done.stdout;
}

/** The last line that a program printed. */
function json(text: string): unknown {
  return JSON.parse(text.trim().split("\n").at(-1) ?? "");
}

function headOf(checkout: string): string {
  return run(checkout, "git", ["rev-parse", "--short", "HEAD"]).trim();
}
