/**
 * Two servers on two hosts, network namespaces both, and what they share on a third: what one has read, the other answers without
 * computing it again.
 */
import { execFile } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { temporaryDirectory } from "./support/data-directory.ts";
import { Hosts, hostsCanBeMade } from "./support/hosts.ts";
import { bucket, keys, servers } from "./support/s3.ts";
import { startServer } from "./support/server.ts";
import { makeCertificate, programs, startStore, type StorePlace } from "./support/valkey.ts";

const chunkTokens = 64;

/** Starts the store, on the third host. @returns flags of the server that reads first, and of the other one */
type Share = (
  place: StorePlace,
  hosts: Hosts,
) => Promise<{ readonly a: readonly string[]; readonly b: readonly string[] }>;

const stores: readonly { readonly name: string; readonly tier: string; readonly share: Share }[] = [
  ...programs.map(({ name, path }) => ({ name, tier: "valkey", share: inValkey(path) })),
  ...servers
    .filter(({ name }) => name !== "fake")
    .map(({ name, start }) => ({ name, tier: "s3", share: inBucket(start) })),
  { name: "the other host", tier: "peer", share: fromEachOther },
];

if (!hostsCanBeMade) process.stderr.write("Two hosts that share a store are not tested: no network namespaces here.\n");

for (const { name, tier, share } of stores)
  test.skipIf(!hostsCanBeMade)(
    `through ${name}: host B answers what only host A has read`,
    async () => {
      const hosts = Hosts.make(["a", "b", "store"]);
      onTestFinished(() => hosts[Symbol.dispose]());
      const flags = await share({ host: hosts.address("store"), netns: hosts.namespace("store") }, hosts);
      const a = await serveOn(hosts.namespace("a"), flags.a);
      const b = await serveOn(hosts.namespace("b"), flags.b);
      for (const [i, each] of [a, b].entries()) await each.ask(textOf(`the first of ${i}`)); // what a token costs is known then
      const first = await a.ask(textOf("a handbook"));
      await expect.poll(() => a.unsavedChunks(), { timeout: 20_000 }).toBe(0);
      const second = await b.ask(textOf("a handbook"));
      expect(second.text).toBe(first.text);
      expect(second.reprise.reused[tier]).toBeGreaterThan(second.reprise.prompt_tokens - chunkTokens - 1);
      expect(second.reprise.computed_tokens).toBeLessThanOrEqual(chunkTokens);
      expect(first.reprise.reused[tier] ?? 0).toBe(0);
      // The same under another salt is another text.
      expect((await b.ask(textOf("a handbook"), "another")).reprise.reused[tier] ?? 0).toBe(0);
    },
    120_000,
  );

interface Answer {
  readonly text: string;
  readonly reprise: {
    readonly prompt_tokens: number;
    readonly computed_tokens: number;
    readonly reused: Readonly<Record<string, number>>;
  };
}

async function serveOn(netns: string, flags: readonly string[]) {
  const dataDirectory = temporaryDirectory();
  const all = ["--disk", "0", "--memory", "256MiB", "--context", "4096", "--deterministic", ...flags];
  const server = await startServer({ dataDirectory, flags: all, netns, environment: keys });
  onTestFinished(() => server.killAll());
  const curl = async (path: string, ...words: readonly string[]): Promise<unknown> => {
    const inside = ["netns", "exec", netns, "curl", "-sSf", "-m", "60", ...words, `${server.url}${path}`];
    return JSON.parse((await promisify(execFile)("ip", inside)).stdout);
  };
  return {
    async ask(prompt: string, salt = ""): Promise<Answer> {
      const body = { prompt, max_tokens: 4, temperature: 0, ...(salt === "" ? {} : { cache_salt: salt }) };
      const words = ["-H", "content-type: application/json", "-d", JSON.stringify(body)];
      const answer = await curl("/v1/completions", ...words);
      const { choices, reprise } = answer as { choices: Answer[]; reprise: Answer["reprise"] };
      return { text: choices[0]!.text, reprise }; // one was asked for
    },
    /** With those that the engine has not given to the cache yet. */
    async unsavedChunks(): Promise<number> {
      return ((await curl("/cache/stats")) as { unsavedChunks: number }).unsavedChunks;
    },
  };
}

function textOf(name: string): string {
  return Array.from({ length: 30 }, (_, i) => `Line ${i} of ${name} says ${(i * 7919) % 9973}.`).join("\n");
}

function inValkey(program: string): Share {
  return async (place) => {
    const store = await startStore({}, program, place);
    onTestFinished(() => store[Symbol.asyncDispose]());
    const flags = ["--tier", `valkey://${place.host}:${store.port}`];
    return { a: flags, b: flags };
  };
}

function inBucket(start: (place?: StorePlace) => Promise<AsyncDisposable & { readonly port: number }>): Share {
  return async (place) => {
    const store = await start(place);
    onTestFinished(() => store[Symbol.asyncDispose]());
    const flags = ["--tier", `s3://${bucket}/kv?endpoint=http://${place.host}:${store.port}`];
    return { a: flags, b: flags };
  };
}

function fromEachOther(_place: StorePlace, hosts: Hosts): ReturnType<Share> {
  const folder = temporaryDirectory();
  const { key, certificate } = makeCertificate(folder, `IP:${hosts.address("a")}`);
  chmodSync(key, 0o600);
  const token = join(folder, "token");
  writeFileSync(token, "0123456789abcdef0123456789abcdef\n", { mode: 0o600 });
  const listen = ["--listen", `${hosts.address("a")}:7000`, "--listen-cert", certificate, "--listen-key", key];
  const b = ["--tier", `peer://${hosts.address("a")}:7000?ca=${certificate}&token-file=${token}`];
  return Promise.resolve({ a: [...listen, "--token-file", token], b });
}
