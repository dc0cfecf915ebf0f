/** Two `reprise cache` processes, one of which reads from the other: over TLS, hung, killed, and in network namespaces of their own. */
import { execFileSync } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { PoolMapping } from "../src/ffi/pool-mapping.ts";
import { bareRoot } from "../src/identity/keys.ts";
import { CacheControl } from "../src/wire/guest/control.ts";
import { connectCache } from "../src/wire/guest/link.ts";
import { counting, loadAndVerify, save, testSpace, wait } from "./support/cache.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
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

function secrets() {
  const folder = temporaryDirectory();
  const { key, certificate } = makeCertificate(folder);
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

test("`reprise serve` is read as well", async () => {
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
  const near = await startServer({
    dataDirectory: temporaryDirectory(),
    flags: [...flags, "--tier", `peer://${await readAt(server)}`],
  });
  onTestFinished(() => near.killAll());
  await expect.poll(async () => (await ask(near.url))["peer"] ?? 0, { timeout: 20_000 }).toBeGreaterThan(500);
}, 120_000);

test("without a certificate and a token nobody listens to strangers, nor reads from them", async () => {
  const fails = async (...more: readonly string[]) => {
    const host = startCache({ dataDirectory: temporaryDirectory(), flags: [...flags, ...more] });
    return host.then(() => "started", (error: Error) => error.message); // prettier-ignore
  };
  expect(await fails("--listen", "0.0.0.0:0")).toMatch(/can be reached from other machines/);
  expect(await fails("--tier", "peer://192.0.2.7:7000")).toMatch(/over TLS and with a token only/);
}, 30_000);

/** Two namespaces with a cable between them; undefined where this user or kernel cannot make any. */
function namespaces(): { readonly near: string; readonly far: string } | undefined {
  const [near, far] = [`reprise-n${process.pid}`, `reprise-f${process.pid}`];
  const ip = (...words: readonly string[]) => execFileSync("ip", words, { stdio: "pipe" });
  onTestFinished(() => {
    for (const name of [near, far])
      try {
        ip("netns", "del", name);
      } catch {
        // it could not be made
      }
  });
  try {
    for (const name of [near, far]) ip("netns", "add", name);
    ip("link", "add", "veth-n", "netns", near, "type", "veth", "peer", "name", "veth-f", "netns", far);
    for (const [name, device, address] of [
      [near, "veth-n", "10.77.0.1/24"],
      [far, "veth-f", "10.77.0.2/24"],
    ] as const) {
      ip("-n", name, "addr", "add", address, "dev", device);
      ip("-n", name, "link", "set", device, "up");
      ip("-n", name, "link", "set", "lo", "up");
    }
    return { near, far };
  } catch (error) {
    process.stderr.write(`Two hosts in network namespaces are not tested: ${String(error).split("\n")[0]}\n`);
    return undefined;
  }
}

test("two machines: the cable is cut in a load, and put back", async (context) => {
  const names = namespaces();
  if (names === undefined) {
    context.skip();
    return;
  }
  const folder = temporaryDirectory();
  const { key, certificate } = makeCertificate(folder, "IP:10.77.0.2");
  chmodSync(key, 0o600);
  const tokenFile = join(folder, "token");
  writeFileSync(tokenFile, "0123456789abcdef0123456789abcdef\n", { mode: 0o600 });
  const listen = ["--listen-cert", certificate, "--listen-key", key, "--token-file", tokenFile];
  const far = await start(["--listen", "10.77.0.2:7000", ...listen], names.far);
  await far.guest.save(400);
  const near = await start(["--tier", `peer://10.77.0.2:7000?ca=${certificate}&token-file=${tokenFile}`], names.near);
  await expect.poll(() => near.guest.lookup(400), { timeout: 10_000 }).toBe(400);
  const load = near.guest.load(400);
  execFileSync("ip", ["-n", names.far, "link", "set", "veth-f", "down"]);
  const began = performance.now();
  await load;
  expect(performance.now() - began).toBeLessThan(12_000);
  expect((await near.stats())["leases"]).toBe(0);
  await expect.poll(async () => (await far.stats())["leases"], { timeout: 30_000 }).toBe(0);
  execFileSync("ip", ["-n", names.far, "link", "set", "veth-f", "up"]);
  await expect.poll(() => near.guest.load(400), { timeout: 30_000 }).toBe(400);
}, 120_000);
