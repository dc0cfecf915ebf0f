/** `reprise cache` as engines meet it: started by one of them, shared, killed, started again, emptied, left alone. */
import { execFile, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { PoolMapping } from "../src/ffi/pool-mapping.ts";
import { bareRoot } from "../src/identity/keys.ts";
import { connectCache, type CacheLink } from "../src/wire/guest/link.ts";
import { CacheControl } from "../src/wire/guest/control.ts";
import { counting, loadAndVerify, save, slotBytes, testSpace, wait } from "./support/cache.ts";
import { bytesBelow, filesBelow, orphanedPools, poolOwners, temporaryDirectory } from "./support/data-directory.ts";
import { rounds } from "./support/depth.ts";
import { commandPath } from "./support/repository.ts";
import { launchCache, startCache } from "./support/server.ts";

const flags = ["--memory", "64MiB", "--disk", "64MiB"];

/** A guest with the pool mapped, also after the cache came back with another one. */
async function connectGuest(socketPath: string) {
  let mapping: PoolMapping | undefined;
  const map = ({ path, bytes }: { path: string; bytes: number }) => {
    mapping?.close();
    mapping = PoolMapping.open(path, bytes);
  };
  const session = await connectCache({
    space: testSpace(),
    rank: 0,
    slotBytes: [slotBytes],
    socketPath,
    reconnectMs: 20,
    onPoolChanged: map,
  });
  map(session.pool);
  onTestFinished(async () => {
    await session.close();
    mapping?.close();
  });
  return { session, memory: { view: (offset: number, bytes: number) => mapping!.slot(offset, bytes) } };
}

function reprise(...args: readonly string[]): Promise<{ code: number; out: string; error: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [commandPath, ...args], { timeout: 60_000 }, (failure, out, error) => {
      resolve({ code: typeof failure?.code === "number" ? failure.code : failure === null ? 0 : -1, out, error });
    });
  });
}

async function startTestCache(dataDirectory: string, more: readonly string[] = []) {
  const cache = await startCache({ dataDirectory, flags: [...flags, ...more] });
  onTestFinished(() => cache.killAll());
  return cache;
}

const hits = async (session: CacheLink, tokens: Uint32Array) =>
  (await session.lookup(bareRoot, tokens, wait)).hitTokens;

test("ready on a socket; several guests share it; SIGTERM ends it with nothing left behind, and what was saved is there", async () => {
  const dataDirectory = temporaryDirectory();
  const cache = await startTestCache(dataDirectory);
  expect(cache.socketPath).toBe(join(dataDirectory, "cache.sock"));
  const [one, two] = [await connectGuest(cache.socketPath), await connectGuest(cache.socketPath)];
  await save(one.session, one.memory, counting(40));
  expect(await loadAndVerify(two.session, two.memory, counting(40))).toBe(40);
  expect(poolOwners()).toContain(cache.pid);
  expect(await cache.stop()).toBe(0);
  expect(poolOwners()).not.toContain(cache.pid);
  expect(existsSync(cache.socketPath)).toBe(false);

  await startTestCache(dataDirectory);
  await expect.poll(() => one.session.isConnected, { timeout: 5000 }).toBe(true);
  expect(await loadAndVerify(one.session, one.memory, counting(40))).toBe(40);
}, 30_000);

test("two started at once: one has the directory, the other says who and exits 3", async () => {
  const dataDirectory = temporaryDirectory();
  const both = [launchCache({ dataDirectory, flags }), launchCache({ dataDirectory, flags })];
  for (const each of both) onTestFinished(() => each.killAll());
  const loser = await Promise.race(both.map(async (each) => ({ each, ...(await each.ended) })));
  const winner = both.find((each) => each !== loser.each)!;
  expect(loser.code).toBe(3);
  expect(loser.each.output()).toContain(`belongs to process ${winner.pid}`);
  const guest = await connectGuest((await winner.ready).replace("unix:", ""));
  expect(await save(guest.session, guest.memory, counting(8))).toBe(2);
}, 30_000);

test("kill -9 and a restart under a guest that loads and saves: nothing wrong, misses meanwhile, hits come back", async () => {
  const dataDirectory = temporaryDirectory();
  let cache = await startTestCache(dataDirectory);
  const guest = await connectGuest(cache.socketPath);
  const texts = Array.from({ length: 30 }, (_, i) => counting(40, 1000 * (i + 1)));
  const working = new AbortController();
  let [loaded, missed] = [0, 0];
  const work = (async () => {
    for (let i = 0; !working.signal.aborted; i += 1) {
      const text = texts[i % texts.length]!;
      // Throws when a byte is another text's; a lease that fell while it was read does not count.
      const found = await loadWhileHeld(guest, text);
      if (found > 0) loaded += 1;
      else missed += 1;
      if (found < text.length) await save(guest.session, guest.memory, text);
      await sleep(1);
    }
  })();
  const kills = rounds({ small: 2, full: 4 });
  for (let kill = 0; kill < kills; kill += 1) {
    const before = loaded;
    await expect.poll(() => loaded, { timeout: 10_000 }).toBeGreaterThan(before + 20);
    await cache.killAll();
    const missedBefore = missed;
    await expect.poll(() => missed, { timeout: 5000 }).toBeGreaterThan(missedBefore + 5);
    expect(existsSync(join(dataDirectory, "cache.sock"))).toBe(true); // the dead one's, to be replaced
    cache = await startTestCache(dataDirectory);
    await expect.poll(() => guest.session.isConnected, { timeout: 5000 }).toBe(true);
  }
  working.abort();
  await work;
  await cache.stop();
  await startTestCache(dataDirectory);
  await expect.poll(() => guest.session.isConnected, { timeout: 5000 }).toBe(true);
  // What is on disk comes back in the background, which takes a while on a busy machine.
  for (const text of texts)
    await expect.poll(() => loadAndVerify(guest.session, guest.memory, text), { timeout: 10_000 }).toBe(40);
  expect(orphanedPools(dataDirectory)).toEqual([]);
}, 60_000);

/** Loads and compares; bytes read while the lease fell are not looked at. @returns usable tokens */
async function loadWhileHeld(guest: Awaited<ReturnType<typeof connectGuest>>, text: Uint32Array): Promise<number> {
  const { session, memory } = guest;
  try {
    return await loadAndVerify(session, memory, text);
  } catch (error) {
    if (session.isConnected) throw error;
    return 0;
  }
}

test("it outlives whoever started it and read its output, and ends when nobody has used it for a while", async () => {
  const dataDirectory = temporaryDirectory();
  // The starter: starts the cache with pipes, in a session of its own, reads the ready line, and dies.
  const starter = `
    const { spawn } = require("node:child_process");
    const args = ${JSON.stringify([commandPath, "cache", "--data-dir", dataDirectory, ...flags, "--stop-when-unused", "1", "--log-level", "debug"])};
    const child = spawn(process.execPath, args, { detached: true, stdio: ["ignore", "pipe", "pipe"] });
    child.stdout.once("data", (text) => { console.log(child.pid + " " + text); process.kill(process.pid, "SIGKILL"); });`;
  const process_ = spawn(process.execPath, ["-e", starter], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  for await (const piece of process_.stdout.setEncoding("utf8")) said += piece as string;
  const [, pid, socketPath] = /^(\d+) Reprise is ready at unix:(.*)/.exec(said) ?? [];
  onTestFinished(() => {
    if (isAlive(Number(pid))) process.kill(Number(pid), "SIGKILL");
  });

  const guest = await connectGuest(socketPath!);
  const passing = await connectGuest(socketPath!);
  await passing.session.close(); // its log line has no reader
  await sleep(1500); // longer than --stop-when-unused: it is being used
  expect(await save(guest.session, guest.memory, counting(8))).toBe(2);
  await guest.session.close();
  expect(isAlive(Number(pid))).toBe(true);
  await expect.poll(() => isAlive(Number(pid)), { timeout: 5000 }).toBe(false);
  expect(poolOwners()).not.toContain(Number(pid));
  expect(filesBelow(dataDirectory).some((file) => file.endsWith(".sock"))).toBe(false);
}, 30_000);

test("--metrics-port: figures, health and statistics; with a key only for who has it", async () => {
  const cache = await startTestCache(temporaryDirectory(), ["--metrics-port", "0", "--admin-key", "for-the-admin"]);
  const [, url] = /^Figures are at (http:\/\/127\.0\.0\.1:\d+)\/metrics$/m.exec(cache.output()) ?? [];
  const guest = await connectGuest(cache.socketPath);
  await save(guest.session, guest.memory, counting(40));
  await guest.session.lookup(bareRoot, counting(40), wait);
  expect(await loadAndVerify(guest.session, guest.memory, counting(40))).toBe(40);

  expect((await fetch(`${url}/health`)).status).toBe(200);
  expect((await fetch(`${url}/metrics`)).status).toBe(401);
  expect((await fetch(`${url}/cache/stats`)).status).toBe(401);
  expect((await fetch(`${url}/v1/models`)).status).toBe(404);
  const headers = { authorization: "Bearer for-the-admin" };
  const text = await (await fetch(`${url}/metrics`, { headers })).text();
  expect(text).toContain('reprise_cache_hit_tokens_total{tier="memory"} 40');
  expect(text).toContain('reprise_cache_loaded_tokens_total{tier="memory"} 40');
  expect(text).toContain("reprise_cache_saved_chunks_total 10");
  expect(text).toContain("reprise_cache_sessions 1");
  expect(text).toMatch(/reprise_cache_capacity_bytes\{tier="disk"\} 67108864/);
  expect(await (await fetch(`${url}/cache/stats`, { headers })).json()).toMatchObject({
    savedChunks: 10,
    sessions: 1,
    tiers: { memory: { usedSlots: 10 } },
  });
  expect((await reprise("cache", "--metrics-port", "0", "--host", "0.0.0.0")).error).toContain("--admin-key-file");
}, 30_000);

test("clear: a running cache forgets everything, also after a restart; so does a data directory that nobody runs", async () => {
  const dataDirectory = temporaryDirectory();
  let cache = await startTestCache(dataDirectory);
  const guest = await connectGuest(cache.socketPath);
  await save(guest.session, guest.memory, counting(40));
  await save(guest.session, guest.memory, counting(400, 5000));
  const held: number[] = [];
  for await (const batch of guest.session.load(bareRoot, counting(4), 0, wait)) held.push(...batch.map((c) => c.lease));

  expect(await reprise("cache", "clear", "--data-dir", dataDirectory)).toMatchObject({
    code: 0,
    out: expect.stringMatching(
      /^Cleared .* in memory, .* on disk; chunks in use, to go when they are released: 1/,
    ) as string,
  });
  expect(await hits(guest.session, counting(400, 5000))).toBe(0);
  guest.session.release(held as never[]);
  expect(await hits(guest.session, counting(40))).toBe(0);
  await using control = await CacheControl.connect(cache.socketPath);
  expect(await control!.stats()).toMatchObject({ chunks: 0, memory: { usedSlots: 0 }, sessions: 1 });
  expect(await save(guest.session, guest.memory, counting(12, 70))).toBe(3); // what comes later stays
  await cache.stop();

  cache = await startTestCache(dataDirectory);
  await expect.poll(() => guest.session.isConnected, { timeout: 5000 }).toBe(true);
  expect(await hits(guest.session, counting(40))).toBe(0);
  expect(await hits(guest.session, counting(400, 5000))).toBe(0);
  expect(await loadAndVerify(guest.session, guest.memory, counting(12, 70))).toBe(12);
  await cache.stop();

  expect(await reprise("cache", "clear", "--data-dir", dataDirectory)).toMatchObject({
    code: 0,
    out: expect.stringContaining("no cache was running") as string,
  });
  expect(bytesBelow(dataDirectory)).toBeLessThan(1024);
  await startTestCache(dataDirectory);
  await expect.poll(() => guest.session.isConnected, { timeout: 5000 }).toBe(true);
  expect(await hits(guest.session, counting(12, 70))).toBe(0);
}, 30_000);

test("compact: disk room comes back from tails that were replaced, beside a running cache and without one", async () => {
  const dataDirectory = temporaryDirectory();
  const disk = join(dataDirectory, "disk");
  const cache = await startTestCache(dataDirectory);
  const guest = await connectGuest(cache.socketPath);
  const compact = async () => (await reprise("cache", "compact", "--data-dir", dataDirectory)).out;
  expect(await compact()).toBe(`${disk}: nothing to give back.\n`);
  // A text that grows token by token: each tail replaces the one before, and stays on disk as garbage.
  for (let length = 1; length <= 300; length += 1) await save(guest.session, guest.memory, counting(length));
  await cache.stop();

  const before = bytesBelow(dataDirectory);
  expect(await compact()).toMatch(new RegExp(`^${disk}: .* [KM]iB given back\\.\\nNo cache was running\\.\\n$`));
  expect(bytesBelow(dataDirectory)).toBeLessThan(before / 2);
  await startTestCache(dataDirectory);
  await expect.poll(() => guest.session.isConnected, { timeout: 5000 }).toBe(true);
  const loaded = () => loadAndVerify(guest.session, guest.memory, counting(300));
  await expect.poll(loaded, { timeout: 20_000 }).toBe(300); // what is not back yet is a miss
  expect(await compact()).toBe(`${disk}: nothing to give back.\n`);
}, 120_000);

test("inspect tells what is on disk, beside a running cache and without one", async () => {
  const dataDirectory = temporaryDirectory();
  const cache = await startTestCache(dataDirectory);
  const guest = await connectGuest(cache.socketPath);
  await save(guest.session, guest.memory, counting(40));
  await save(guest.session, guest.memory, counting(10), { root: { salt: "another", adapter: "" } });
  const json = async () => JSON.parse((await reprise("inspect", dataDirectory, "--json")).out) as unknown;
  const disk = {
    regions: [{ state: "open", chunks: 13, damaged: 0 }],
    spaces: [{ space: guest.session.spaceId, roots: 2, parts: 1, chunks: 13, tokens: 50, payloadBytes: 13 * 512 }],
  };
  await expect
    .poll(json, { timeout: 10_000 })
    .toMatchObject({ dataDir: dataDirectory, running: { sessions: 1 }, disk });
  const page = await reprise("inspect", dataDirectory);
  expect(page).toMatchObject({ code: 0, error: "" });
  expect(page.out).toContain("a cache runs here");
  expect(page.out).toMatch(new RegExp(`^\\? +${guest.session.spaceId.slice(0, 12)} +2 +1 +13 +50 `, "m"));

  await cache.killAll();
  expect(await json()).toMatchObject({ running: null, disk });
  expect((await reprise("inspect", "--data-dir", dataDirectory)).out).toContain("no cache runs here");
  expect(await reprise("inspect", join(dataDirectory, "nowhere"))).toMatchObject({ code: 2 });
}, 30_000);

/** A zombie is dead: only its starter's absence keeps its number. */
function isAlive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}
