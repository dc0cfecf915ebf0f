/**
 * Two hosts and a store between them: how soon does host B answer a text that only host A has read?
 *
 *     npm run bench -- shared-hosts [--store valkey|s3|peer|nixl] [--compress none|lossless]
 *                                  [--links 1gbit/0.2ms,10gbit/0.2ms,1gbit/20ms,10gbit/20ms,20mbit/20ms] [--rounds 5] [--tokens 4000]
 *
 * Needs root, iproute2 and redis-server, or SeaweedFS (REPRISE_TEST_SEAWEEDFS: where it is); `peer` is host A's own cache; `nixl` is a folder
 * that both have, which no link is in the way of (NIXL_LIBRARY: where NIXL is). Hosts are network
 * namespaces of this program's own, joined by a bridge, each end with the rate and half of the round trip of the link (tc netem; where the
 * kernel has none, tbf and a relay before the store, which shows no slow start of TCP: see `delay` among the conditions).
 *
 * A link's rounds: a new text is asked on A, stored, and asked on B of two servers by turns, one with the store and one without. `ratio` is
 * between those two, within a round: what the store saves, or, where the link is too slow for it, costs. `loadMs` is what requests waited
 * for lookups and loads. The client runs on the host that
 * it asks. Medians.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { Hosts } from "../test/support/hosts.ts";
import { commandPath, repositoryRoot, shippedModelPath } from "../test/support/repository.ts";
import { bucket, keys, servers } from "../test/support/s3.ts";
import { makeCertificate } from "../test/support/valkey.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    store: { type: "string", default: "valkey" },
    compress: { type: "string", default: "none" },
    links: { type: "string", default: "1gbit/0.2ms,10gbit/0.2ms,1gbit/20ms,10gbit/20ms,20mbit/20ms" },
    rounds: { type: "string", default: "5" },
    tokens: { type: "string", default: "4000" },
  },
});

/** What is shared, as the bench knows it. */
interface Store {
  /** As answers call it. */
  readonly tier: string;
  /** Where it listens: a host and a port; 0: nowhere. */
  readonly at: { readonly host: "a" | "store"; readonly port: number };
  /** Flags of the two hosts, by the port that stands for the store. */
  readonly flags: (port: number) => { readonly a: readonly string[]; readonly b: readonly string[] };
}

type Name = "a" | "b" | "cold";
/** `cold` is on B's host too. */
const places: Readonly<Record<Name, { readonly host: "a" | "b"; readonly port: number }>> = {
  a: { host: "a", port: 8080 },
  b: { host: "b", port: 8080 },
  cold: { host: "b", port: 8081 },
};

const folder = mkdtempSync(join(tmpdir(), "reprise-hosts-"));
const started: ChildProcess[] = [];
const figures: Record<string, object> = {};
const relayPath = join(repositoryRoot, "test", "support", "delayed-relay.mjs");
let relayPort = 7100;
let delay: "netem" | "relay" = "netem";
using hosts = Hosts.make(["a", "b", "store"]);
let opened: AsyncDisposable | undefined;
try {
  const makers: Readonly<Record<string, () => Store | Promise<Store>>> = {
    valkey: inValkey,
    s3: inBucket,
    peer: ofA,
    nixl: inFolder,
  };
  const make = makers[values.store];
  if (make === undefined) throw new Error(`--store is one of ${Object.keys(makers).join(", ")}`);
  const store = await make();
  for (const link of values.links.split(",")) figures[link] = await measure(store, link);
} finally {
  for (const child of started) child.kill("SIGKILL");
  await opened?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
}
const { store, compress } = values;
const conditions = { store, compress, rounds: Number(values.rounds), tokens: Number(values.tokens), delay };
printLine("shared-hosts", figures, conditions);

function inValkey(): Store {
  run("store", "redis-server", ["--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]);
  const flags = (port: number) => ["--tier", `valkey://${hosts.address("store")}:${port}?compress=${values.compress}`];
  return { tier: "valkey", at: { host: "store", port: 6379 }, flags: (port) => ({ a: flags(port), b: flags(port) }) };
}

async function inBucket(): Promise<Store> {
  const program = servers.find(({ name }) => name === "SeaweedFS");
  if (program === undefined) throw new Error("SeaweedFS is not here: REPRISE_TEST_SEAWEEDFS says where it is");
  const server = await program.start({ host: hosts.address("store"), netns: hosts.namespace("store") });
  opened = server;
  const flags = (port: number) => [
    "--tier",
    `s3://${bucket}/kv?endpoint=http://${hosts.address("store")}:${port}&compress=${values.compress}`,
  ];
  return {
    tier: "s3",
    at: { host: "store", port: server.port },
    flags: (port) => ({ a: flags(port), b: flags(port) }),
  };
}

function ofA(): Store {
  const { key, certificate } = makeCertificate(folder, `IP:${hosts.address("a")}`);
  chmodSync(key, 0o600);
  const token = join(folder, "token");
  writeFileSync(token, "0123456789abcdef0123456789abcdef\n", { mode: 0o600 });
  const listen = ["--listen", "0.0.0.0:7000", "--listen-cert", certificate, "--listen-key", key, "--token-file", token];
  const from = (port: number) =>
    `peer://${hosts.address("a")}:${port}?ca=${certificate}&token-file=${token}&compress=${values.compress}`;
  return { tier: "peer", at: { host: "a", port: 7000 }, flags: (port) => ({ a: listen, b: ["--tier", from(port)] }) };
}

function inFolder(): Store {
  const shared = join(folder, "shared");
  mkdirSync(shared, { mode: 0o700 });
  const flags = ["--tier", `nixl://posix${shared}?compress=${values.compress}`];
  return { tier: "nixl", at: { host: "store", port: 0 }, flags: () => ({ a: flags, b: flags }) };
}

/** Servers are started anew for each link: what they have learned of the store's speed is of that link. */
async function measure({ tier, at, flags }: Store, link: string): Promise<object> {
  const [rate, roundTrip] = link.split("/");
  const delayMs = Number.parseFloat(roundTrip!) / 2; // written so, as the help says
  delay = hosts.shape({ rate: rate!, delayMs }) === "both" ? "netem" : "relay";
  const port = delay === "netem" || at.port === 0 ? at.port : await startRelay(at, delayMs);
  const arms = { a: flags(port).a, b: flags(port).b, cold: [] };
  const running: ChildProcess[] = [];
  for (const name of ["a", "b", "cold"] as const) running.push(await serve(name, link, arms[name]));
  const reports: Record<"b" | "cold", Report[]> = { b: [], cold: [] };
  // All compute a text of their own first: pages are touched, code is compiled, speeds are known.
  for (const name of ["a", "b", "cold"] as const) await ask(name, textOf(`${link} ${name}`));
  for (let round = 0; round < Number(values.rounds); round += 1) {
    const text = textOf(`${link} round ${round}`);
    await ask("a", text);
    await stored("a");
    const order = ["b", "cold"] as const;
    for (const name of round % 2 === 0 ? order : order.toReversed()) reports[name].push(await ask(name, text));
  }
  for (const server of running) server.kill("SIGTERM");
  await Promise.all(running.map((server) => new Promise((over) => server.once("exit", over))));
  const ratios = reports.b.map((each, i) => each.ttft_ms / reports.cold[i]!.ttft_ms); // one of each in a round
  return {
    coldMs: rounded(median(reports.cold.map((each) => each.ttft_ms))),
    sharedMs: rounded(median(reports.b.map((each) => each.ttft_ms))),
    ratio: rounded(median(ratios)),
    ratios: ratios.map(rounded),
    loadMs: rounded(median(reports.b.map((each) => each.load_ms))),
    coldLoadMs: rounded(median(reports.cold.map((each) => each.load_ms))),
    reusedTokens: median(reports.b.map(({ reused }) => reused[tier] ?? 0)),
  };
}

async function startRelay({ host, port }: Store["at"], delayMs: number): Promise<number> {
  const own = (relayPort += 1);
  const relay = run(host, process.execPath, [relayPath, ...[own, port, delayMs].map(String), hosts.address(host)]);
  await new Promise((ready) => relay.stdout!.once("data", ready));
  return own;
}

async function serve(name: Name, link: string, shared: readonly string[]): Promise<ChildProcess> {
  const { host, port } = places[name];
  const dataDir = join(folder, `${name}-${link.replaceAll("/", "-")}`);
  mkdirSync(dataDir, { mode: 0o700 });
  const flags = ["--data-dir", dataDir, "--memory", "512MiB", "--model", shippedModelPath, "--port", String(port)];
  const child = run(host, process.execPath, [commandPath, "serve", ...flags, ...shared]);
  await new Promise<void>((ready, fail) => {
    child.stdout!.on("data", (text: Buffer) => text.includes("ready") && ready());
    child.once("exit", (code) => fail(new Error(`the server ${name} ended with ${code}`)));
  });
  return child;
}

function run(host: string, program: string, args: readonly string[]): ChildProcess {
  const child = spawn("ip", ["netns", "exec", hosts.namespace(host), program, ...args], {
    stdio: ["ignore", "pipe", "ignore"],
    cwd: folder,
    env: { ...process.env, ...keys },
  });
  started.push(child);
  return child;
}

interface Report {
  readonly ttft_ms: number;
  readonly load_ms: number;
  readonly reused: Readonly<Record<string, number>>;
}

async function ask(name: Name, prompt: string): Promise<Report> {
  const body = join(folder, "body.json");
  writeFileSync(body, JSON.stringify({ prompt, max_tokens: 1, temperature: 0 }));
  const answer = await curl(name, "/v1/completions", ["-d", `@${body}`]);
  return (JSON.parse(answer) as { reprise: Report }).reprise;
}

async function stored(name: Name): Promise<void> {
  for (;;) {
    const stats = JSON.parse(await curl(name, "/cache/stats")) as { unsavedChunks: number };
    if (stats.unsavedChunks === 0) return;
    await sleep(100);
  }
}

function curl(name: Name, path: string, args: readonly string[] = []): Promise<string> {
  const { host, port } = places[name];
  const program = ["curl", "-sS", "-H", "content-type: application/json", ...args, `http://127.0.0.1:${port}${path}`];
  const words = ["netns", "exec", hosts.namespace(host), ...program];
  return Promise.resolve(execFileSync("ip", words, { encoding: "utf8" }));
}

/** Nobody has read it before. */
function textOf(name: string): string {
  const lines = Math.ceil(Number(values.tokens) / 26);
  return Array.from({ length: lines }, (_, i) => `Line ${i} of ${name} says ${(i * 7919) % 9973}.`).join("\n");
}
