/**
 * What of the engine process's processor time is not llama.cpp's, while 1, 4 and 16 answers are written; and what it tells the server.
 *
 *     npm run bench -- engine-overhead [--model FILE] [--streams 1,4,16] [--tokens 900] [--threads 1] [--checkout FOLDER]
 *
 * V8's profile of the engine's main thread (support/profiled.mjs) says what share of its samples is not in llama_decode; /proc, what that thread
 * and the others have used. `outside` is that share and V8's own threads, of all that the process used: choosing tokens, telling the server,
 * deciding steps, saving KV, and the profiling itself. `sending` and `drawing` are parts of it. Each count of streams runs twice, and the second
 * one counts. `--checkout`: of another checkout, built.
 */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { StartedServer } from "../src/bench/started-server.ts";
import { repositoryRoot, shippedModelPath } from "../test/support/repository.ts";
import { childrenOf } from "../test/support/server.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: shippedModelPath },
    streams: { type: "string", default: "1,4,16" },
    tokens: { type: "string", default: "900" },
    threads: { type: "string", default: "1" },
    checkout: { type: "string", default: repositoryRoot },
  },
});
const streamCounts = values.streams.split(",").map(Number);
const tokens = Number(values.tokens);
const threads = Number(values.threads);
const url = "http://127.0.0.1:18120";

/** V8's format; times in microseconds of the machine's monotonic clock. */
interface Profile {
  readonly nodes: readonly { readonly id: number; readonly callFrame: Frame; readonly children?: readonly number[] }[];
  readonly startTime: number;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
  /** Ids of the threads that profiling started. */
  readonly ownThreads: readonly string[];
}

interface Frame {
  readonly functionName: string;
  readonly url: string;
}

/** What a run used, and when it began and ended in microseconds. */
interface Used {
  readonly streams: number;
  readonly from: number;
  readonly to: number;
  readonly tokensPerSecond: number;
  readonly mainMs: number;
  /** Of the other threads. */
  readonly threadMs: ReadonlyMap<string, number>;
  readonly serverMs: number;
  readonly writtenBytes: number;
  readonly writes: number;
}

const folder = mkdtempSync(join(tmpdir(), "reprise-overhead-"));
process.env["REPRISE_PROFILES"] = folder;
process.env["NODE_OPTIONS"] =
  `--import=${pathToFileURL(join(repositoryRoot, "bench", "support", "profiled.mjs")).href}`;
const program = join(resolve(values.checkout), "dist", "cli", "main.js");
const server = await StartedServer.start(
  `${process.execPath} ${program} serve --port 18120 --data-dir ${join(folder, "data")} --model ${values.model} ` +
    `--sequences ${Math.max(...streamCounts)} --context ${tokens + 128} --threads ${threads} --gpu off`,
);
try {
  await server.ready(isReady, AbortSignal.timeout(120_000));
  const { engine } = childrenOf(server.pid);
  const runs: Used[] = [];
  for (const streams of streamCounts) {
    await measured(engine, streams);
    runs.push(await measured(engine, streams));
  }
  // The engine ends with its server, and has time to write its profile when nobody ends it.
  process.kill(server.pid, "SIGKILL");
  const profile = await profileOf(engine);
  const figures = Object.fromEntries(runs.map((run) => [`${run.streams} streams`, figuresOf(run, profile)]));
  console.table(figures);
  printLine("engine-overhead", figures, { model: values.model.split("/").at(-1), tokens, threads });
} finally {
  await server.kill();
  rmSync(folder, { recursive: true, force: true });
}

async function isReady(signal: AbortSignal): Promise<boolean> {
  try {
    return (await fetch(`${url}/health`, { signal })).ok;
  } catch {
    return false;
  }
}

async function measured(engine: number, streams: number): Promise<Used> {
  const before = usedBy(engine);
  const serverBefore = cpuMs(`/proc/${server.pid}/stat`);
  const from = nowUs();
  await Promise.all(Array.from({ length: streams }, (_, i) => ask(i)));
  const to = nowUs();
  const after = usedBy(engine);
  const serverMs = cpuMs(`/proc/${server.pid}/stat`) - serverBefore;
  return {
    streams,
    from,
    to,
    tokensPerSecond: (1e6 * streams * tokens) / (to - from),
    mainMs: after.mainMs - before.mainMs,
    threadMs: new Map([...after.threadMs].map(([id, ms]) => [id, ms - (before.threadMs.get(id) ?? 0)])),
    serverMs,
    writtenBytes: after.writtenBytes - before.writtenBytes,
    writes: after.writes - before.writes,
  };
}

async function ask(stream: number): Promise<void> {
  const body = { prompt: `Note ${stream} of ${Date.now()}:`, max_tokens: tokens, stream: true, ignore_eos: true };
  const answer = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}: ${await answer.text()}`);
  await answer.text();
}

function usedBy(pid: number): Pick<Used, "mainMs" | "threadMs" | "writtenBytes" | "writes"> {
  const io = readFileSync(`/proc/${pid}/io`, "utf8");
  const ofIo = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, "m").exec(io)?.[1] ?? 0);
  const ids = readdirSync(`/proc/${pid}/task`).filter((id) => id !== String(pid));
  return {
    mainMs: cpuMs(`/proc/${pid}/task/${pid}/stat`),
    threadMs: new Map(ids.map((id) => [id, cpuMs(`/proc/${pid}/task/${id}/stat`)])),
    writtenBytes: ofIo("wchar"),
    writes: ofIo("syscw"),
  };
}

/** USER_HZ is 100: ten milliseconds a tick. utime and stime are the 14th and 15th field, counted after the name. */
function cpuMs(statPath: string): number {
  const fields = readFileSync(statPath, "utf8").split(") ").at(-1)!.split(" ");
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

async function profileOf(pid: number): Promise<Profile> {
  const path = join(folder, `engine-process.js.${pid}.json`);
  for (let look = 0; look < 100 && existsSync(`/proc/${pid}`); look += 1) await sleep(100);
  return JSON.parse(readFileSync(path, "utf8")) as Profile; // as V8 writes it
}

function figuresOf(run: Used, { nodes, startTime, samples, timeDeltas, ownThreads }: Profile): object {
  const threadMs = [...run.threadMs].filter(([id]) => !ownThreads.includes(id)).map(([, ms]) => ms);
  const sum = (all: readonly number[]) => all.reduce((total, ms) => total + ms, 0);
  const otherMs = sum(threadMs.sort((a, b) => b - a).slice(threads - 1)); // ggml's are those that used most
  const engineMs = run.mainMs + sum(threadMs);
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)));
  const isIn = (sample: number, name: string, file: string) => {
    for (let id: number | undefined = sample; id !== undefined; id = parents.get(id)) {
      const { functionName, url } = frames.get(id)!; // all that are named are nodes
      if (functionName === name && url.endsWith(file)) return true;
    }
    return false;
  };
  const counts = { busy: 0, outside: 0, sending: 0, drawing: 0 };
  let at = startTime;
  for (const [i, sample] of samples.entries()) {
    at += timeDeltas[i]!; // as many as samples
    if (at < run.from || at > run.to || frames.get(sample)!.functionName === "(idle)") continue;
    counts.busy += 1;
    if (isIn(sample, "decode", "/process/context.js")) continue;
    counts.outside += 1;
    if (isIn(sample, "send", "/server-channel.js")) counts.sending += 1;
    else if (isIn(sample, "draw", "/process/generation.js")) counts.drawing += 1;
  }
  const ofEngine = (count: number) => (count / counts.busy) * (run.mainMs / engineMs);
  const all = run.streams * tokens;
  return {
    tokensPerSecond: rounded(run.tokensPerSecond),
    outside: rounded(ofEngine(counts.outside) + otherMs / engineMs),
    otherThreads: rounded(otherMs / engineMs),
    sending: rounded(ofEngine(counts.sending)),
    drawing: rounded(ofEngine(counts.drawing)),
    engineUsPerToken: rounded((1000 * engineMs) / all),
    serverUsPerToken: rounded((1000 * run.serverMs) / all),
    bytesPerToken: rounded(run.writtenBytes / all),
    writesPerStep: rounded(run.writes / tokens),
  };
}
