/**
 * A thousand clients that leave at once while a Valkey hangs: nothing of theirs is left, whoever asks next is answered, and the store is used
 * again when it answers.
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import type { CacheStats } from "../src/cache/cache-stats.ts";
import { bareRoot } from "../src/identity/keys.ts";
import { PoolMapping } from "../src/ffi/pool-mapping.ts";
import { CacheControl } from "../src/wire/guest/control.ts";
import { connectCache } from "../src/wire/guest/link.ts";
import { counting, save, testSpace, wait } from "./support/cache.ts";
import { ask, metric } from "./support/client.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { openFiles, ownMemory } from "./support/process-use.ts";
import { send } from "./support/raw-client.ts";
import { childrenOf, startCache, startServer } from "./support/server.ts";
import { programs, startStore } from "./support/valkey.ts";

const bytes = 64 * 1024;
const isHere = programs.length > 0 && process.platform === "linux";
/** Some 500 tokens. */
const promptOf = (name: number) =>
  Array.from({ length: 25 }, (_, i) => `Line ${i} of handbook ${name} says ${(i * 7919) % 9973}.`).join("\n");
const prompts = Array.from({ length: 6 }, (_, i) => promptOf(i));

test.skipIf(!isHere)(
  "over HTTP: answers, prefetches and pins are called off, and the next request is answered",
  async () => {
    await using store = await startStore();
    const dataDirectory = temporaryDirectory();
    const tier = ["--tier", `valkey://127.0.0.1:${store.port}`];
    const flags = [
      "--memory 256MiB --disk 0 --context 4096 --sequences 2 --queue 2000 --deterministic".split(" "),
      tier,
    ].flat();
    const server = await startServer({ dataDirectory, flags });
    onTestFinished(() => server.killAll());
    const port = Number(new URL(server.url).port);
    const question = (i: number) => ({ prompt: prompts[i % 6]!, max_tokens: 2, temperature: 0 }); // there are six
    const answers = [];
    for (let i = 0; i < 6; i += 1) answers.push((await ask(server.url, "/v1/completions", question(i))).text);
    const socketPath = join(dataDirectory, "cache.sock");
    await expect.poll(() => unsaved(socketPath), { timeout: 20_000 }).toBe(0);
    const pids = [server.pid, childrenOf(server.pid).engine];

    const wave = async () => {
      await forget(socketPath);
      const sockets = await Promise.all(
        Array.from({ length: 1000 }, (_, i) => {
          const { prompt, ...more } = question(Math.floor(i / 4));
          if (i % 2 === 0) return send(port, { prompt, ...more, stream: i % 4 === 0 }, { path: "/v1/completions" });
          return send(port, { prompt, seconds: 60 }, { path: i % 4 === 1 ? "/cache/prefetch" : "/cache/pin" });
        }),
      );
      await sleep(500);
      for (const socket of sockets) socket.destroy();
    };
    const before = { files: openFiles(pids), bytes: 0 }; // the first wave makes the server's own memory grow
    const answeredMs: number[] = [];
    for (let i = 0; i < 3; i += 1) {
      store.process.kill("SIGSTOP");
      await wave();
      const left = performance.now();
      const next = await ask(server.url, "/v1/completions", question(i));
      answeredMs.push(performance.now() - left);
      expect(next.text).toBe(answers[i]);
      const running = async () =>
        (await metric(server.url, "reprise_requests_running")) + (await metric(server.url, "reprise_requests_waiting"));
      await expect.poll(running, { timeout: 30_000 }).toBe(0);
      await expect.poll(async () => (await statsOf(socketPath)).leases, { timeout: 10_000 }).toBe(0);
      await expect.poll(() => openFiles(pids), { timeout: 10_000 }).toBeLessThan(before.files + 20);
      if (i === 0) before.bytes = ownMemory(pids);
      store.process.kill("SIGCONT");
      await expect.poll(() => stateOf(socketPath), { timeout: 20_000 }).toBe("up");
      await forget(socketPath);
      const body = JSON.stringify(question(i));
      const init = { method: "POST", headers: { "content-type": "application/json" }, body };
      const ready = async () => {
        const answer = await fetch(`${server.url}/cache/prefetch`, init);
        return ((await answer.json()) as { ready_tokens: number }).ready_tokens;
      };
      await expect.poll(ready, { timeout: 10_000 }).toBeGreaterThan(300);
    }
    expect(ownMemory(pids) - before.bytes).toBeLessThan(150 * 2 ** 20);
    for (const ms of answeredMs) expect(ms).toBeLessThan(30_000); // 500 answers would take minutes
  },
  180_000,
);

test.skipIf(!isHere)(
  "at the cache's socket: loads, prefetches and pins of guests that go in the middle of them",
  async () => {
    await using store = await startStore();
    const flags = ["--memory", "256MiB", "--disk", "0", "--tier", `valkey://127.0.0.1:${store.port}`];
    const cache = await startCache({ dataDirectory: temporaryDirectory(), flags });
    onTestFinished(() => cache.killAll());
    const { socketPath } = cache;
    const connect = () => connectCache({ space: testSpace(), rank: 0, slotBytes: [bytes], socketPath });
    const text = counting(1600); // 400 chunks, of which 65 are read at a time
    const owner = await connect();
    const mapping = PoolMapping.open(owner.pool.path, owner.pool.bytes);
    onTestFinished(async () => {
      await owner.close();
      mapping.close();
    });
    const memory = { view: (offset: number, length: number) => mapping.slot(offset, length) };
    expect(await save(owner, memory, text, { bytes })).toBe(400);
    await expect.poll(() => unsaved(socketPath), { timeout: 20_000 }).toBe(0);
    await forget(socketPath);
    expect(await owner.lookup(bareRoot, text, wait)).toMatchObject({ segments: [{ tier: "valkey", to: 1600 }] });
    const files = openFiles([cache.pid]);

    for (let i = 0; i < 5; i += 1) {
      const guests = await Promise.all(Array.from({ length: 200 }, connect));
      store.process.kill("SIGSTOP");
      const underWay = guests.map(async (guest, at) => {
        if (at % 3 === 0) return guest.prefetch(bareRoot, text, wait);
        if (at % 3 === 1) return guest.pin(bareRoot, text, 60, wait);
        for await (const batch of guest.load(bareRoot, text, 0, wait)) return batch.length;
        return 0;
      });
      // Later ones find that the store is away.
      if (i === 0) await expect.poll(async () => (await statsOf(socketPath)).leases).toBeGreaterThan(20_000);
      await Promise.all(guests.map((guest) => guest.close()));
      expect(new Set(await Promise.all(underWay))).toEqual(new Set([0]));
      const { leases, pinnedBytes } = await statsOf(socketPath);
      expect({ leases, pinnedBytes }).toEqual({ leases: 0, pinnedBytes: 0 });
    }
    await expect.poll(() => openFiles([cache.pid]), { timeout: 10_000 }).toBeLessThan(files + 10);
    const began = performance.now();
    expect(await save(owner, memory, counting(40, 5000), { bytes })).toBe(10);
    expect(performance.now() - began).toBeLessThan(5000);

    store.process.kill("SIGCONT");
    await expect.poll(() => stateOf(socketPath), { timeout: 20_000 }).toBe("up");
    await expect.poll(() => owner.prefetch(bareRoot, text, wait), { timeout: 20_000 }).toBe(1600);
    expect((await statsOf(socketPath)).leases).toBe(0);
  },
  120_000,
);

async function statsOf(socketPath: string): Promise<CacheStats> {
  const control = await CacheControl.connect(socketPath);
  await using _control = control;
  return (await control!.stats()) as unknown as CacheStats; // as it was sent
}

const stateOf = async (socketPath: string) => (await statsOf(socketPath)).tiers["valkey"]?.state.is;

async function unsaved(socketPath: string): Promise<number> {
  const { chunks, waitingChunks } = (await statsOf(socketPath)).writeBehind;
  return chunks + waitingChunks;
}

/** What the host has in memory goes; what lies in the store stays. */
async function forget(socketPath: string): Promise<void> {
  const control = await CacheControl.connect(socketPath);
  await using _control = control;
  await control!.clear();
}
