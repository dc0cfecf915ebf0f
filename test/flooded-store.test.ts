/**
 * Two hosts, network namespaces both, and a Valkey on a third, with a quota for each tenant: one tenant floods it through both hosts, under
 * as many salts as it likes. Its bytes end at its quota, and what another stores is found on the other host as soon as without the flood.
 */
import { expect, onTestFinished, test } from "vitest";
import { PoolMapping } from "../src/ffi/pool-mapping.ts";
import type { Root } from "../src/identity/keys.ts";
import { CacheControl } from "../src/wire/guest/control.ts";
import { connectCache } from "../src/wire/guest/link.ts";
import { counting, loadAndVerify, save, testSpace } from "./support/cache.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { Hosts, hostsCanBeMade } from "./support/hosts.ts";
import { startCache } from "./support/server.ts";
import { programs, startStore } from "./support/valkey.ts";

const bytes = 64 * 1024;
const quotaBytes = 16 * 1024 * 1024;
/** Ten chunks. */
const textOf = (number: number) => counting(40, 1 + 1000 * number);
const rootOf = (tenant: string, salt = tenant): Root => ({ salt, tenant, adapter: "" });

/** What lies in the store, but for its counters. */
const storedBytes = `
  local sum, at = 0, "0"
  repeat
    local page = redis.call("SCAN", at, "COUNT", 1000)
    at = page[1]
    for _, name in ipairs(page[2]) do
      if not string.find(name, ":quota:", 1, true) then sum = sum + redis.call("STRLEN", name) end
    end
  until at == "0"
  return sum`;

if (!hostsCanBeMade || programs.length === 0)
  process.stderr.write(
    "Two hosts of which one tenant floods a store are not tested: no network namespaces, or no Valkey.\n",
  );

test.skipIf(!hostsCanBeMade || programs.length === 0)(
  "a tenant that floods a store through two hosts takes no more than its quota, and nothing of another's time",
  async () => {
    const hosts = Hosts.make(["a", "b", "store"]);
    onTestFinished(() => hosts[Symbol.dispose]());
    const place = { host: hosts.address("store"), netns: hosts.namespace("store") };
    const store = await startStore({}, programs[0]!.path, place);
    onTestFinished(() => store[Symbol.asyncDispose]());
    const tier = `valkey://${place.host}:${store.port}?max-per-tenant=${quotaBytes / 1024}KiB`;
    const [one, other] = await Promise.all(["a", "b"].map((host) => guestOn(hosts.namespace(host), tier)));
    const inStore = async () => Number(await store.command("EVAL", storedBytes, "0"));

    /** B stores a text on one host. @returns how long it took until all of it was found on the other one */
    const travels = async (number: number) => {
      const began = performance.now();
      await one!.save(rootOf("B"), textOf(number));
      const { hitTokens } = await other!.session.lookup(rootOf("B"), textOf(number), {
        deadlineMs: 20_000,
        awaited: true,
      });
      expect(hitTokens).toBe(40);
      return performance.now() - began;
    };
    const quiet: number[] = [];
    for (let i = 0; i < 8; i += 1) quiet.push(await travels(i));
    const bytesOfB = await inStore();

    const floodEnds = new AbortController();
    onTestFinished(() => floodEnds.abort());
    const flood = async (guest: typeof one, first: number) => {
      let texts = 0;
      for (; !floodEnds.signal.aborted; texts += 1)
        await guest!.save(rootOf("A", `salt ${texts % 50}`), textOf(first + texts));
      return texts;
    };
    const flooding = [flood(one, 1000), flood(other, 2000)];
    await expect.poll(inStore, { timeout: 20_000 }).toBeGreaterThan(bytesOfB + quotaBytes * 0.9);
    const flooded: number[] = [];
    for (let i = 8; i < 16; i += 1) flooded.push(await travels(i));
    const most = await inStore();
    floodEnds.abort();
    const texts = await Promise.all(flooding);
    await expect.poll(async () => (await one!.unsaved()) + (await other!.unsaved()), { timeout: 30_000 }).toBe(0);

    expect(40 * bytes * (texts[0]! + texts[1]!)).toBeGreaterThan(10 * quotaBytes); // it is a flood
    for (const each of [most, await inStore()]) expect(each - 2 * bytesOfB).toBeLessThanOrEqual(quotaBytes);
    expect((await one!.refused()) + (await other!.refused())).toBeGreaterThan(500);
    for (let i = 0; i < 16; i += 1) expect(await other!.load(rootOf("B"), textOf(i))).toBe(40);
    const [usual, beside] = [median(quiet), median(flooded)];
    expect(beside).toBeLessThan(usual + 1000);
  },
  120_000,
);

async function guestOn(netns: string, tier: string) {
  const flags = ["--memory", "256MiB", "--disk", "0", "--tier", tier];
  const host = await startCache({ dataDirectory: temporaryDirectory(), flags, netns });
  onTestFinished(() => host.killAll());
  const { socketPath } = host;
  const session = await connectCache({ space: testSpace(), rank: 0, slotBytes: [bytes], socketPath });
  const mapping = PoolMapping.open(session.pool.path, session.pool.bytes);
  onTestFinished(async () => {
    await session.close();
    mapping.close();
  });
  const memory = { view: (offset: number, length: number) => mapping.slot(offset, length) };
  const figures = async () => {
    const control = await CacheControl.connect(socketPath);
    await using _control = control;
    return (await control!.stats()) as {
      readonly tiers: { readonly valkey: { readonly refusedWrites: number } };
      readonly writeBehind: { readonly chunks: number; readonly waitingChunks: number };
    };
  };
  return {
    session,
    save: (root: Root, text: Uint32Array) => save(session, memory, text, { root, bytes }),
    load: (root: Root, text: Uint32Array) => loadAndVerify(session, memory, text, { root, bytes }),
    refused: async () => (await figures()).tiers.valkey.refusedWrites,
    unsaved: async () => {
      const { chunks, waitingChunks } = (await figures()).writeBehind;
      return chunks + waitingChunks;
    },
  };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!; // some
}
