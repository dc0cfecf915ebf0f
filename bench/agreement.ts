/**
 * Does `reprise bench multi-round-qa` measure what the benchmark it is named after measures? Both run by turns against the
 * same server, started afresh each time, with equal parameters and texts: ours, and an independent Python program that
 * follows the published definition (bench/reference/multi_round_qa.py).
 *
 *     npm run bench -- agreement [--pairs 3] [--time 25] [--server COMMAND] [...]
 *
 * Without --server that is llama-server (bench/peers/build-llama-server.sh) with the shipped model and one thread, so that
 * client and server have a core each. Only requests that both sides made are compared: the same user's same question. Prints
 * one JSON line with the ratios ours / reference; exit code 1 when one of the medians is off by more than 5 %.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { parseArgs } from "node:util";
import { parseResult } from "../src/bench/parse-result.ts";
import { StartedServer } from "../src/bench/started-server.ts";
import { mean, median } from "../src/bench/statistics.ts";
import { commandPath, repositoryRoot, shippedModelPath } from "../test/support/repository.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    pairs: { type: "string", default: "3" },
    time: { type: "string", default: "25" },
    port: { type: "string", default: "18090" },
    server: { type: "string" },
    // With R - 1 and N without a common factor requests come one by one; at this rate the nearest ones are 0.3 s apart, so that
    // they seldom meet in the server.
    "num-users": { type: "string", default: "5" },
    "num-rounds": { type: "string", default: "4" },
    qps: { type: "string", default: "0.85" },
    "shared-system-prompt": { type: "string", default: "40" },
    "user-history-prompt": { type: "string", default: "160" },
    "answer-len": { type: "string", default: "30" },
  },
});
const { pairs, port, server, ...parameters } = values;
const url = `http://127.0.0.1:${port}`;
const serverCommand = server ?? llamaServer();
const flags = Object.entries(parameters).flatMap(([name, value]) => [`--${name}`, value]);
const allowed = 0.05;

/** One request as both sides tell it; times in milliseconds. */
interface Measured {
  /** User and question: equal on both sides. */
  readonly key: string;
  readonly sentMs: number;
  readonly ttftMs: number;
  readonly tokensPerSecond: number;
}

// Ended by a signal, it takes the server with it.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
const directory = mkdtempSync(join(tmpdir(), "reprise-agreement-"));
const ratios: { ttftMean: number; ttftP50: number; generationSpeed: number; matched: number; alone: number }[] = [];
const figures: { ours: object; reference: object }[] = [];
try {
  for (let pair = 0; pair < Number(pairs); pair += 1) {
    let [ours, reference]: [Measured[], Measured[]] = [[], []];
    for (const side of pair % 2 === 0 ? (["ours", "reference"] as const) : (["reference", "ours"] as const)) {
      if (side === "ours") ours = await runOurs();
      else reference = await runReference();
    }
    compare(ours, reference);
    process.stderr.write(`pair ${pair + 1}: ${JSON.stringify({ ...ratios.at(-1), ...figures.at(-1) })}\n`);
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}

const medians = {
  ttftMean: rounded(median(ratios.map(({ ttftMean }) => ttftMean))),
  ttftP50: rounded(median(ratios.map(({ ttftP50 }) => ttftP50))),
  generationSpeed: rounded(median(ratios.map(({ generationSpeed }) => generationSpeed))),
};
printLine(
  "agreement",
  { oursOverReference: medians, pairs: ratios.map((ratio, pair) => ({ ...ratio, ...figures[pair] })) },
  { ...parameters, server: serverCommand.replaceAll(repositoryRoot, ".") },
);
if (Object.values(medians).some((ratio) => Math.abs(ratio - 1) > allowed)) process.exitCode = 1;

async function runOurs(): Promise<Measured[]> {
  const json = join(directory, "ours.json");
  const args = ["bench", "multi-round-qa", ...flags, "--text", "hi", "--url", url, "--start", serverCommand];
  const child = spawn(process.execPath, [commandPath, ...args, "--json", json], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await text(child.stdout);
  const { samples } = parseResult(readFileSync(json, "utf8"), json);
  return samples.map((sample) => {
    const { id, outcome, firstTokenMs, completionTokens = 0 } = sample;
    if (outcome !== "ok" || firstTokenMs === undefined) throw new Error(`${id}: ${outcome} ${sample.error ?? ""}`);
    return {
      key: keyOf(id),
      sentMs: sample.sentMs,
      ttftMs: firstTokenMs - sample.sentMs,
      tokensPerSecond: (completionTokens * 1000) / (sample.endMs - firstTokenMs),
    };
  });
}

/** Ours counts the rounds that a user asked; the first of those there at the start is not their first question. */
function keyOf(id: string): string {
  const [, user = "", round = ""] = /^user (\d+) round (\d+)$/.exec(id) ?? [];
  const [users, rounds] = [Number(parameters["num-users"]), Number(parameters["num-rounds"])];
  const number = Number(user);
  const behind = number > users ? 0 : Math.floor(((users - number + 1) * (rounds - 1)) / users) + 1;
  return `user ${user} question ${Number(round) + behind}`;
}

async function runReference(): Promise<Measured[]> {
  const program = join(repositoryRoot, "bench", "reference", "multi_round_qa.py");
  await using started = await StartedServer.start(serverCommand);
  await started.ready(async () => (await statusOf("/health")) === 200, new AbortController().signal);
  await warmUp();
  const child = spawn("python3", [program, "--url", url, ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  const { requests } = JSON.parse(await text(child.stdout)) as { requests: ReferenceRequest[] };
  return requests.map((each) => ({
    key: `user ${each.user} question ${each.question}`,
    sentMs: each.sent * 1000,
    ttftMs: each.ttft * 1000,
    tokensPerSecond: each.generationTokens / each.generationTime,
  }));
}

interface ReferenceRequest {
  readonly user: number;
  readonly question: number;
  readonly sent: number;
  readonly ttft: number;
  readonly generationTime: number;
  readonly generationTokens: number;
}

/** The request that ours sends before it measures. */
async function warmUp(): Promise<void> {
  const messages = [{ role: "user", content: "(0) Before we begin: count from one to twenty in words." }];
  const body = JSON.stringify({ messages, max_tokens: 16, temperature: 0 });
  const headers = { "content-type": "application/json" };
  await (await fetch(`${url}/v1/chat/completions`, { method: "POST", headers, body })).text();
}

async function statusOf(path: string): Promise<number | undefined> {
  try {
    return (await fetch(`${url}${path}`)).status;
  } catch {
    return undefined; // not there yet
  }
}

function compare(ours: readonly Measured[], reference: readonly Measured[]): void {
  const theirs = new Map(reference.map((each) => [each.key, each]));
  const both = ours.flatMap((each) => {
    const other = theirs.get(each.key);
    return other === undefined ? [] : [{ ours: each, reference: other }];
  });
  if (both.length === 0) throw new Error("no request was made by both sides");
  const of = (side: "ours" | "reference") => {
    const measured = both.map((each) => each[side]);
    return {
      requests: side === "ours" ? ours.length : reference.length,
      ttftMeanMs: mean(measured.map(({ ttftMs }) => ttftMs)),
      ttftP50Ms: median(measured.map(({ ttftMs }) => ttftMs)),
      tokensPerSecond: mean(measured.map(({ tokensPerSecond }) => tokensPerSecond)),
      lastSentSeconds: Math.max(...measured.map(({ sentMs }) => sentMs)) / 1000,
    };
  };
  const [one, other] = [of("ours"), of("reference")];
  ratios.push({
    ttftMean: rounded(one.ttftMeanMs / other.ttftMeanMs),
    ttftP50: rounded(one.ttftP50Ms / other.ttftP50Ms),
    generationSpeed: rounded(one.tokensPerSecond / other.tokensPerSecond),
    matched: both.length,
    alone: ours.length + reference.length - 2 * both.length,
  });
  const short = (side: object) =>
    Object.fromEntries(Object.entries(side).map(([name, value]) => [name, rounded(value)]));
  figures.push({ ours: short(one), reference: short(other) });
}

function llamaServer(): string {
  const script = join(repositoryRoot, "bench", "peers", "build-llama-server.sh");
  const binary = execFileSync(script, { encoding: "utf8" }).trim().split("\n").at(-1) ?? "";
  // A slot for each user, and a new user does not take another's because both begin with the same system prompt.
  const flags = "--ctx-size 32768 --parallel 8 --slot-prompt-similarity 0.5 --cache-ram 0 --threads 1 --log-disable";
  return `'${binary}' --model '${shippedModelPath}' --port ${port} ${flags}`;
}
