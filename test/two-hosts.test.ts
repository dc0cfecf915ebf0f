/** Two `reprise cache` processes, one of which reads from the other: over TLS, hung, killed, and in network namespaces of their own. */
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { PoolMapping } from "../src/ffi/pool-mapping.ts";
import { bareRoot } from "../src/identity/keys.ts";
import { CacheControl } from "../src/wire/guest/control.ts";
import { connectCache } from "../src/wire/guest/link.ts";
import { counting, loadAndVerify, save, testSpace, wait } from "./support/cache.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { Hosts, hostsCanBeMade } from "./support/hosts.ts";
import { startCache, startServer, type LaunchedServer } from "./support/server.ts";
import { makeCertificate } from "./support/valkey.ts";

const flags = ["--memory", "512MiB", "--disk", "0"];
const bytes = 1_000_000;

async function guestOf(socketPath: string) {
  const session = await connectCache({ space: testSpace(), rank: 0, slotBytes: [1024 * 1024], socketPath });
  const mapping = PoolMapping.open(session.pool.path, session.pool.bytes);
  onTestFinished(async () => {
    await session.close();
    mapping.close();
  });
  const memory = { view: (offset: number, length: number) => mapping.slot(offset, length) };
  return {
    save: (length: number) => save(session, memory, counting(length), { bytes }),
    load: (length: number) => loadAndVerify(session, memory, counting(length), { bytes }),
    lookup: async (length: number) => (await session.lookup(bareRoot, counting(length), wait)).hitTokens,
  };
}

async function start(more: readonly string[], netns?: string) {
  const host = await startCache({
    dataDirectory: temporaryDirectory(),
    flags: [...flags, ...more],
    ...(netns && { netns }),
  });
  onTestFinished(() => host.killAll());
  return { ...host, guest: await guestOf(host.socketPath), stats: () => statsOf(host.socketPath) };
}

async function statsOf(socketPath: string): Promise<{ readonly [name: string]: unknown }> {
  const control = await CacheControl.connect(socketPath);
  await using _control = control;
  return control!.stats();
}

const readAt = async (host: Pick<LaunchedServer, "output">): Promise<string> => {
  const line = () => /^ *(?:Other hosts|hosts +) ?read at (\S+)$/m.exec(host.output())?.[1];
  await expect.poll(line).toBeDefined();
  return line()!;
};

function secrets(name?: string) {
  const folder = temporaryDirectory();
  const { key, certificate } = makeCertificate(folder, name);
  chmodSync(key, 0o600);
  const tokenFile = join(folder, "token");
  writeFileSync(tokenFile, "0123456789abcdef0123456789abcdef\n", { mode: 0o600 });
  return {
    listen: ["--listen-cert", certificate, "--listen-key", key, "--token-file", tokenFile],
    read: `?ca=${certificate}&token-file=${tokenFile}`,
  };
}

test("over TLS, by the flags: what one has stored the other loads", async () => {
  const { listen, read } = secrets();
  const far = await start(["--listen", "127.0.0.1:0", ...listen]);
  await far.guest.save(40);
  const near = await start(["--tier", `peer://${await readAt(far)}${read}`]);
  await expect.poll(() => near.guest.load(40), { timeout: 10_000 }).toBe(40);
  expect((await near.stats())["loadedTokens"]).toMatchObject({ peer: 40 });
  expect(await near.stop()).toBe(0);
  expect(await far.stop()).toBe(0);
}, 30_000);

for (const name of ["SIGSTOP", "SIGKILL"] as const)
  test(`${name} of the host that is read while loads run: the reader goes on, and no lease is left`, async () => {
    const far = await start(["--listen", "127.0.0.1:0"]);
    await far.guest.save(400);
    const near = await start(["--tier", `peer://${await readAt(far)}`]);
    await expect.poll(() => near.guest.lookup(400), { timeout: 10_000 }).toBe(400);
    const load = near.guest.load(400);
    far.signal(name);
    const began = performance.now();
    expect(await load).toBeLessThanOrEqual(400); // every byte that came is right
    expect(performance.now() - began).toBeLessThan(12_000);
    const next = performance.now();
    await near.guest.lookup(30);
    await near.guest.lookup(600);
    expect(performance.now() - next).toBeLessThan(2500);
    expect(await near.guest.save(600)).toBeGreaterThan(0); // computed instead
    expect(await near.guest.load(600)).toBe(600);
    expect((await near.stats())["leases"]).toBe(0);
    if (name === "SIGKILL") return;
    far.signal("SIGCONT");
    await expect.poll(async () => (await far.stats())["leases"], { timeout: 15_000 }).toBe(0);
  }, 60_000);

test("the reader is killed in a load: no lease is left on the host that is read", async () => {
  const far = await start(["--listen", "127.0.0.1:0"]);
  await far.guest.save(400);
  const near = await start(["--tier", `peer://${await readAt(far)}`]);
  await expect.poll(() => near.guest.lookup(400), { timeout: 10_000 }).toBe(400);
  const load = near.guest.load(400);
  await near.killAll();
  await load.catch(() => 0); // its pool is gone as well
  await expect.poll(async () => (await far.stats())["leases"], { timeout: 15_000 }).toBe(0);
  expect(await far.guest.load(400)).toBe(400);
}, 60_000);

test("`reprise serve` is read as well, and what it has computed comes in fewer bytes to those who ask for that", async () => {
  const server = await startServer({
    dataDirectory: temporaryDirectory(),
    flags: [...flags, "--listen", "127.0.0.1:0"],
  });
  onTestFinished(() => server.killAll());
  const ask = async (url: string): Promise<Record<string, number>> => {
    const content = Array.from({ length: 400 }, (_, i) => `word ${i}`).join(" ");
    const body = JSON.stringify({ messages: [{ role: "user", content }], max_tokens: 2, temperature: 0 });
    const answer = await fetch(`${url}/v1/chat/completions`, { method: "POST", headers: { "content-type": "application/json" }, body }); // prettier-ignore
    return ((await answer.json()) as { reprise: { reused: Record<string, number> } }).reprise.reused;
  };
  await ask(server.url);
  for (const [compress, share] of [
    ["none", 1],
    ["lossless", 0.9],
  ] as const) {
    const near = await startServer({
      dataDirectory: temporaryDirectory(),
      flags: [...flags, "--tier", `peer://${await readAt(server)}?compress=${compress}`],
    });
    onTestFinished(() => near.killAll());
    await expect.poll(async () => (await ask(near.url))["peer"] ?? 0, { timeout: 20_000 }).toBeGreaterThan(500);
    const stats = (await (await fetch(`${near.url}/cache/stats`)).json()) as {
      tiers: { peer: Record<string, number> };
    };
    const { readStoredBytes, readBytes = 0 } = stats.tiers.peer;
    if (share === 1) expect(readStoredBytes).toBe(readBytes);
    else expect(readStoredBytes).toBeLessThan(share * readBytes);
  }
}, 120_000);

test("without a certificate and a token nobody listens to strangers, nor reads from them", async () => {
  const fails = async (...more: readonly string[]) => {
    const host = startCache({ dataDirectory: temporaryDirectory(), flags: [...flags, ...more] });
    return host.then(() => "started", (error: Error) => error.message); // prettier-ignore
  };
  expect(await fails("--listen", "0.0.0.0:0")).toMatch(/can be reached from other machines/);
  expect(await fails("--tier", "peer://192.0.2.7:7000")).toMatch(/over TLS and with a token only/);
}, 30_000);

if (!hostsCanBeMade) process.stderr.write("Two hosts whose cable is cut are not tested: no network namespaces here.\n");

test.skipIf(!hostsCanBeMade)(
  "two machines: the cable is cut in a load, and put back",
  async () => {
    const hosts = Hosts.make(["near", "far"]);
    onTestFinished(() => hosts[Symbol.dispose]());
    const at = `${hosts.address("far")}:7000`;
    const { listen, read } = secrets(`IP:${hosts.address("far")}`);
    const far = await start(["--listen", at, ...listen], hosts.namespace("far"));
    await far.guest.save(400);
    const near = await start(["--tier", `peer://${at}${read}`], hosts.namespace("near"));
    await expect.poll(() => near.guest.lookup(400), { timeout: 10_000 }).toBe(400);
    const load = near.guest.load(400);
    hosts.connect("far", "down");
    const began = performance.now();
    await load;
    expect(performance.now() - began).toBeLessThan(12_000);
    expect((await near.stats())["leases"]).toBe(0);
    await expect.poll(async () => (await far.stats())["leases"], { timeout: 30_000 }).toBe(0);
    hosts.connect("far", "up");
    await expect.poll(() => near.guest.load(400), { timeout: 30_000 }).toBe(400);
  },
  120_000,
);
