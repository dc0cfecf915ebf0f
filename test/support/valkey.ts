/** Real Valkey and Redis servers of the tests' own: one, a primary with a replica and sentinels, a cluster, TLS. */
import { execFile, execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { Redis } from "ioredis";

/** Programs that are here, by what they call themselves. Where CI is set both must be there. */
export const programs: readonly { readonly name: string; readonly path: string }[] = [
  { name: "redis", path: "/usr/bin/redis-server" },
  { name: "valkey", path: process.env["REPRISE_TEST_VALKEY"] ?? "/usr/bin/valkey-server" },
].filter(({ path }) => existsSync(path) || process.env["CI"] !== undefined);

export interface StoreServer extends AsyncDisposable {
  readonly port: number;
  readonly folder: string;
  readonly process: ChildProcess;
  /** Ends it at once. */
  kill(): Promise<void>;
  /** Starts it again on the same port and folder. */
  restart(): Promise<void>;
  command(...words: readonly string[]): Promise<unknown>;
}

/** Where a store runs: here, or on a host of hosts.ts, where only programs on such hosts reach it. */
export interface StorePlace {
  readonly host: string;
  readonly netns?: string;
}

export const here: StorePlace = { host: "127.0.0.1" };

/** @param options configuration, as on the command line without dashes: `{ maxmemory: "64mb" }` */
export async function startStore(
  options: Readonly<Record<string, string>> = {},
  program = programs[0]!.path,
  place = here,
): Promise<StoreServer> {
  const folder = mkdtempSync(join(tmpdir(), "reprise-store-"));
  const port = await freePort();
  const secure = options["tls-port"] !== undefined;
  const ports = secure ? { port: "0", "tls-port": String(port) } : { port: String(port) };
  const open = place.netns === undefined ? {} : { "protected-mode": "no" };
  const given = { bind: place.host, save: "", dir: folder, "io-threads": "1", ...open, ...options, ...ports };
  const { sentinel, ...settings } = given as Record<string, string>;
  if (sentinel !== undefined) writeFileSync(join(folder, "sentinel.conf"), sentinel);
  const flags = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, ...value.split("|")]);
  const args = sentinel === undefined ? flags : [join(folder, "sentinel.conf"), "--sentinel", "--port", String(port)];
  const launch = async () => {
    const [first, ...words] = [...prefixOf(place), program, ...args];
    const child = spawn(first!, words, { stdio: ["ignore", "pipe", "pipe"] }); // the program at least
    child.stdout?.resume();
    for (let tries = 0; ; tries += 1) {
      if (child.exitCode !== null) throw new Error(`${program} ended with ${child.exitCode}`);
      if (await (place.netns === undefined ? answers(port, secure) : answersThere(place, port))) return child;
      if (tries > 2000) throw new Error(`${program} does not answer`);
      await sleep(10);
    }
  };
  let child = await launch();
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  };
  return {
    port,
    folder,
    get process() {
      return child;
    },
    kill,
    async restart() {
      child = await launch();
    },
    async command(...words) {
      if (place.netns !== undefined) return commandThere(place, port, words);
      const [name, ...more] = words;
      const client = new Redis({ port, host: "127.0.0.1", lazyConnect: true });
      try {
        await client.connect();
        return await client.call(name!, ...more);
      } finally {
        client.disconnect();
      }
    },
    async [Symbol.asyncDispose]() {
      await kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Three nodes that share all slots. */
export async function startCluster(): Promise<AsyncDisposable & { readonly nodes: readonly StoreServer[] }> {
  const nodes = await Promise.all(
    [0, 1, 2].map((i) => startStore({ "cluster-enabled": "yes", "cluster-config-file": `nodes-${i}.conf` })),
  );
  const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`);
  await promisify(execFile)("redis-cli", ["--cluster", "create", ...addresses, "--cluster-yes"]);
  for (const node of nodes)
    await until(async () => String(await node.command("CLUSTER", "INFO")).includes("cluster_state:ok"));
  return {
    nodes,
    async [Symbol.asyncDispose]() {
      for (const node of nodes) await node[Symbol.asyncDispose]();
    },
  };
}

/** A primary, its replica, and three sentinels that watch them as `mymaster`. */
export async function startSentinels(place = here): Promise<
  AsyncDisposable & {
    readonly primary: StoreServer;
    readonly replica: StoreServer;
    readonly sentinels: readonly StoreServer[];
  }
> {
  const program = programs[0]!.path;
  const primary = await startStore({}, program, place);
  const replicaof = `${place.host}|${primary.port}`;
  const replica = await startStore({ replicaof, "repl-diskless-sync-delay": "0" }, program, place);
  await until(async () => String(await replica.command("INFO", "replication")).includes("master_link_status:up"));
  const sentinel = [
    `sentinel monitor mymaster ${place.host} ${primary.port} 2`,
    "sentinel down-after-milliseconds mymaster 500",
    "sentinel failover-timeout mymaster 2000",
    `bind ${place.host}`,
    "protected-mode no",
    "",
  ].join("\n");
  const sentinels = await Promise.all([0, 1, 2].map(() => startStore({ sentinel }, program, place)));
  for (const each of sentinels)
    await until(async () =>
      /num-other-sentinels,2,/.test(String(await each.command("SENTINEL", "MASTER", "mymaster"))),
    );
  return {
    primary,
    replica,
    sentinels,
    async [Symbol.asyncDispose]() {
      for (const each of [...sentinels, replica, primary]) await each[Symbol.asyncDispose]();
    },
  };
}

/** A certificate for 127.0.0.1, or another name, signed by itself. */
export function makeCertificate(
  folder: string,
  name = "IP:127.0.0.1",
): { readonly key: string; readonly certificate: string } {
  const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
  const subject = ["-subj", "/CN=reprise-test", "-addext", `subjectAltName=${name}`];
  const how = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  execFileSync("openssl", [...how, "-keyout", key, "-out", certificate, ...subject], { stdio: "ignore" });
  return { key, certificate };
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  await new Promise((closed) => server.close(closed));
  return port;
}

/** @throws Error after half a minute */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (const began = performance.now(); !(await isSo()); await sleep(20))
    if (performance.now() - began > 30_000) throw new Error(`still not: ${isSo.toString()}`);
}

/** What runs a program there. */
export function prefixOf({ netns }: StorePlace): string[] {
  return netns === undefined ? [] : ["ip", "netns", "exec", netns];
}

/** Through redis-cli, which runs where the store does. */
async function commandThere(place: StorePlace, port: number, words: readonly string[]): Promise<unknown> {
  const [program, ...args] = [
    ...prefixOf(place),
    "redis-cli",
    "-2",
    "--json",
    "-h",
    place.host,
    "-p",
    String(port),
    ...words,
  ];
  const { stdout } = await promisify(execFile)(program!, args, { timeout: 20_000, maxBuffer: 2 ** 28 }); // never empty
  return /^[["\d-]/.test(stdout) ? JSON.parse(stdout) : stdout; // INFO comes as it is
}

async function answersThere(place: StorePlace, port: number): Promise<boolean> {
  try {
    return (await commandThere(place, port, ["PING"])) === "PONG";
  } catch {
    return false; // it does not listen yet
  }
}

async function answers(port: number, secure: boolean): Promise<boolean> {
  const tls = secure ? { tls: { rejectUnauthorized: false } } : {};
  const client = new Redis({ port, host: "127.0.0.1", lazyConnect: true, retryStrategy: () => null, ...tls });
  let said = "";
  client.on("error", (error) => (said = String(error)));
  try {
    await client.connect();
    await client.ping();
    return true;
  } catch (error) {
    return /NOAUTH/.test(`${said} ${String(error)}`); // it has a password, so it is there
  } finally {
    client.disconnect();
  }
}
