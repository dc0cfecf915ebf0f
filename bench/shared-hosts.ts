/**
 * Two hosts and a store between them: how soon does host B answer a text that only host A has read?
 *
 *     npm run bench -- shared-hosts [--links 1gbit/0.2ms,10gbit/0.2ms,1gbit/20ms,10gbit/20ms,20mbit/20ms] [--rounds 5] [--tokens 4000]
 *
 * Needs root, iproute2 and redis-server: hosts are network namespaces of this program's own, joined by a bridge, each end with the
 * rate and half of the round trip of the link (tc netem; where the kernel has none, tbf and a relay before the store, which shows no
 * slow start of TCP: see `delay` among the conditions). A link's rounds: a new text is asked on A, stored, asked on B; B's time to
 * its first token beside A's, which has computed all of it. The client runs on the host that it asks. Medians, and of the ratios
 * within a round.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { Hosts } from "../test/support/hosts.ts";
import { commandPath, repositoryRoot, shippedModelPath } from "../test/support/repository.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    links: { type: "string", default: "1gbit/0.2ms,10gbit/0.2ms,1gbit/20ms,10gbit/20ms,20mbit/20ms" },
    rounds: { type: "string", default: "5" },
    tokens: { type: "string", default: "4000" },
  },
});
const folder = mkdtempSync(join(tmpdir(), "reprise-hosts-"));
const started: ChildProcess[] = [];
const figures: Record<string, object> = {};
const relayPath = join(repositoryRoot, "test", "support", "delayed-relay.mjs");
let relayPort = 7000;
let delay: "netem" | "relay" = "netem";
using hosts = Hosts.make(["a", "b", "store"]);
try {
  run("store", "redis-server", ["--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]);
  for (const link of values.links.split(",")) figures[link] = await measure(link);
} finally {
  for (const child of started) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
printLine("shared-hosts", figures, { rounds: Number(values.rounds), tokens: Number(values.tokens), delay });

/** Servers are started anew for each link: what they have learned of the store's speed is of that link. */
async function measure(link: string): Promise<object> {
  const [rate, roundTrip] = link.split("/");
  const delayMs = Number.parseFloat(roundTrip!) / 2; // written so, as the help says
  delay = hosts.shape({ rate: rate!, delayMs }) === "both" ? "netem" : "relay";
  const port = delay === "netem" ? 6379 : await startRelay(delayMs);
  const servers = await Promise.all((["a", "b"] as const).map((host) => serve(host, link, port)));
  const cold: number[] = [];
  const shared: number[] = [];
  const reused: number[] = [];
  // Both compute a text of their own first: pages are touched, code is compiled, speeds are known.
  for (const host of ["a", "b"] as const) await ask(host, textOf(`${link} ${host}`));
  for (let round = 0; round < Number(values.rounds); round += 1) {
    const text = textOf(`${link} round ${round}`);
    const onA = await ask("a", text);
    await stored("a");
    const onB = await ask("b", text);
    cold.push(onA.ttft_ms);
    shared.push(onB.ttft_ms);
    reused.push(onB.reused.valkey);
  }
  for (const server of servers) server.kill("SIGTERM");
  await Promise.all(servers.map((server) => new Promise((over) => server.once("exit", over))));
  return {
    coldMs: rounded(median(cold)),
    sharedMs: rounded(median(shared)),
    ratio: rounded(median(shared.map((ms, i) => ms / cold[i]!))),
    reusedTokens: median(reused),
  };
}

async function startRelay(delayMs: number): Promise<number> {
  const port = (relayPort += 1);
  const relay = run("store", process.execPath, [relayPath, String(port), "6379", String(delayMs)]);
  await new Promise((ready) => relay.stdout!.once("data", ready));
  return port;
}

async function serve(host: "a" | "b", link: string, port: number): Promise<ChildProcess> {
  const dataDir = join(folder, `${host}-${link.replaceAll("/", "-")}`);
  const flags = ["--data-dir", dataDir, "--memory", "512MiB", "--model", shippedModelPath, "--port", "8080"];
  const child = run(host, process.execPath, [
    commandPath,
    "serve",
    ...flags,
    "--tier",
    `valkey://${hosts.address("store")}:${port}`,
  ]);
  await new Promise<void>((ready, fail) => {
    child.stdout!.on("data", (text: Buffer) => text.includes("ready") && ready());
    child.once("exit", (code) => fail(new Error(`the server on ${host} ended with ${code}`)));
  });
  return child;
}

function run(host: string, program: string, args: readonly string[]): ChildProcess {
  const child = spawn("ip", ["netns", "exec", hosts.namespace(host), program, ...args], {
    stdio: ["ignore", "pipe", "ignore"],
    cwd: folder,
  });
  started.push(child);
  return child;
}

interface Report {
  readonly ttft_ms: number;
  readonly reused: { readonly valkey: number };
}

async function ask(host: string, prompt: string): Promise<Report> {
  const body = join(folder, "body.json");
  writeFileSync(body, JSON.stringify({ prompt, max_tokens: 1, temperature: 0 }));
  const answer = await curl(host, ["-d", `@${body}`, "http://127.0.0.1:8080/v1/completions"]);
  return (JSON.parse(answer) as { reprise: Report }).reprise;
}

async function stored(host: string): Promise<void> {
  for (;;) {
    const stats = JSON.parse(await curl(host, ["http://127.0.0.1:8080/cache/stats"])) as { unsavedChunks: number };
    if (stats.unsavedChunks === 0) return;
    await sleep(100);
  }
}

function curl(host: string, args: readonly string[]): Promise<string> {
  const words = [
    "netns",
    "exec",
    hosts.namespace(host),
    "curl",
    "-sS",
    "-H",
    "content-type: application/json",
    ...args,
  ];
  return Promise.resolve(execFileSync("ip", words, { encoding: "utf8" }));
}

/** Nobody has read it before. */
function textOf(name: string): string {
  const lines = Math.ceil(Number(values.tokens) / 26);
  return Array.from({ length: lines }, (_, i) => `Line ${i} of ${name} says ${(i * 7919) % 9973}.`).join("\n");
}
