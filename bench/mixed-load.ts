/**
 * Ten minutes of everything that a server is asked at home, at once: does its memory stay flat, and its event loop free?
 *
 *     npm run bench -- mixed-load [--minutes 10] [--model FILE] [--sequences 4] [--context 8192] [--threads 2] [--memory 512MiB]
 *                                 [--seed 1] [--json FILE]
 *
 * 4 to 16 users chat, another number of them every half minute: streamed answers of 48 tokens, up to eight turns about their own notes.
 * Beside them every ten seconds a new prompt of 4,000 tokens, clients that leave while they wait or are answered, polls of /metrics,
 * /cache/stats and the page, and requests that are wrong. Every 2 s each process's own memory (what of it is shared is the pool,
 * which fills up to `--memory`), its open files and the event loop's delay in the process that answers HTTP are noted.
 *
 * It fails when a request of those that are right was not answered, or one that is wrong was; when a process's memory in the last
 * quarter is more than 24 MiB above that in the second; when connections stay open; or when the 99th percentile of the event loop's delay, of
 * any minute, is above 20 ms. A signal ends it early, with the figures until then.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { parseMetrics } from "../src/bench/metrics-text.ts";
import { Random } from "../src/bench/notes/random.ts";
import { mean, median } from "../src/bench/statistics.ts";
import { shippedModelPath } from "../test/support/repository.ts";
import { openFiles, openSockets, ownMemory } from "../test/support/process-use.ts";
import { childrenOf, startServer } from "../test/support/server.ts";
import { slope } from "../test/support/soak.ts";
import { HomeLoad } from "./support/home-load.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    model: { type: "string", default: shippedModelPath },
    sequences: { type: "string", default: "4" },
    context: { type: "string", default: "8192" },
    threads: { type: "string", default: "2" },
    memory: { type: "string", default: "512MiB" },
    seed: { type: "string", default: "1" },
    json: { type: "string" },
  },
});
/** A tokenizer that is started when many ask brings sockets of its own to the process that starts it. */
const bounds = { grownMiB: 24, socketsLeft: 2, socketsOfTokenizer: 3, delayP99Ms: 20 };
const everyMs = 2000;
const minutes = Number(values.minutes);

interface Look {
  readonly minute: number;
  /** By process. */
  readonly bytes: Readonly<Record<string, number>>;
  readonly files: number;
  /** Of the last minute. */
  readonly delayMs: { readonly p50: number; readonly p99: number; readonly longest: number };
}

const dataDirectory = mkdtempSync(join(tmpdir(), "reprise-load-"));
const { model, sequences, context, threads, memory } = values;
const settings = { model, sequences, context, threads, memory };
const flags = Object.entries({ ...settings, queue: "64" }).flatMap(([name, value]) => [`--${name}`, value]);
const server = await startServer({ dataDirectory, flags });
try {
  const { engine, tokenizers } = childrenOf(server.pid);
  const processes = {
    http: server.pid,
    engine,
    ...Object.fromEntries(tokenizers.map((pid, i) => [`tokenizer${i}`, pid])),
  };
  const pids = Object.values(processes);
  const load = new HomeLoad(server.url, new Random(Number(values.seed)));
  await load.askOnce(); // connections that a server opens once are open
  const socketsBefore = openSockets(pids);

  const looks: Look[] = [];
  const end = new AbortController();
  const over = setTimeout(() => end.abort(), minutes * 60_000);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => end.abort());
  const running = load.run(end.signal);
  const began = performance.now();
  while (!end.signal.aborted) {
    await sleep(everyMs);
    const delayMs = await delaysOf(server.url);
    const bytes = Object.fromEntries(Object.entries(processes).map(([name, pid]) => [name, ownMemory([pid])]));
    looks.push({ minute: (performance.now() - began) / 60_000, bytes, files: openFiles(pids), delayMs });
  }
  clearTimeout(over);
  await running;
  await load.askOnce();
  const more = childrenOf(server.pid).tokenizers.length - tokenizers.length;
  const sockets = { before: socketsBefore, after: await socketsSettled(pids, socketsBefore), moreTokenizers: more };

  const memoryMiB = Object.fromEntries(Object.keys(processes).map((name) => [name, growthOf(looks, name)]));
  // Before that the last minute is also the server's start.
  const loaded = looks.filter(({ minute }, i) => minute >= 1 || i === looks.length - 1).map(({ delayMs }) => delayMs);
  const eventLoopMs = {
    p50: rounded(median(loaded.map(({ p50 }) => p50))),
    p99OfWorstMinute: rounded(Math.max(...loaded.map(({ p99 }) => p99))),
    longest: rounded(Math.max(...loaded.map(({ longest }) => longest))),
  };
  const mostFiles = Math.max(...looks.map(({ files }) => files));
  const held = {
    answered: load.faults.length === 0,
    memory: Object.values(memoryMiB).every(({ grown }) => grown <= bounds.grownMiB),
    sockets: sockets.after - sockets.before <= bounds.socketsLeft + bounds.socketsOfTokenizer * more,
    eventLoop: eventLoopMs.p99OfWorstMinute <= bounds.delayP99Ms,
  };
  printLine(
    "mixed-load",
    {
      held,
      bounds,
      memoryMiB,
      eventLoopMs,
      sockets,
      mostFiles,
      requests: load.counts,
      faults: load.faults.slice(0, 5),
    },
    { minutes, ...settings, model: model.split("/").at(-1), seed: values.seed },
    values.json,
  );
  if (Object.values(held).includes(false)) process.exitCode = 1;
} finally {
  await server.stop();
  rmSync(dataDirectory, { recursive: true, force: true });
}

/** As many as are open when no more than before are, or after ten seconds: both ends have to close a connection. */
async function socketsSettled(pids: readonly number[], before: number): Promise<number> {
  const end = performance.now() + 10_000;
  while (openSockets(pids) > before && performance.now() < end) await sleep(200);
  return openSockets(pids);
}

/** The engine's heap and the server's grow at first: the second quarter of the time is what the last one is compared with. */
function growthOf(looks: readonly Look[], name: string) {
  const points = looks.map(({ minute, bytes }) => [minute, bytes[name]! / 2 ** 20] as const); // each look has all of them
  const between = (from: number, to: number) => points.slice(from * points.length, Math.ceil(to * points.length));
  const level = (of: typeof points) => mean(of.map(([, mib]) => mib));
  const [first, second, last] = [between(0, 0.25), between(0.25, 0.5), between(0.75, 1)];
  return {
    first: rounded(level(first)),
    last: rounded(level(last)),
    grown: rounded(level(last) - level(second)),
    perMinuteInSecondHalf: rounded(slope(between(0.5, 1))),
  };
}

async function delaysOf(url: string): Promise<Look["delayMs"]> {
  const figures = parseMetrics(await (await fetch(`${url}/metrics`, { headers: { connection: "close" } })).text());
  const of = (quantile: string) => 1000 * figures[`reprise_event_loop_delay_seconds{quantile="${quantile}"}`]!; // it is always told
  return { p50: of("0.5"), p99: of("0.99"), longest: of("1") };
}
