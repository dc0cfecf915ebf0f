/** Two `reprise cache` processes and a pool of Mooncake's: by the flags, what one has stored the other loads; and what ends with what. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, expect, onTestFinished, test } from "vitest";
import { PoolMapping } from "../src/ffi/pool-mapping.ts";
import { bareRoot } from "../src/identity/keys.ts";
import { CacheControl } from "../src/wire/guest/control.ts";
import { connectCache } from "../src/wire/guest/link.ts";
import { counting, loadAndVerify, save, testSpace, wait } from "./support/cache.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { isHere, python, startPool } from "./support/mooncake.ts";
import { startCache } from "./support/server.ts";

const bytes = 1_000_000;

async function start(tier: string, more: readonly string[] = []) {
  const flags = ["--memory", "512MiB", "--disk", "0", "--tier", tier, ...more];
  const host = await startCache({ dataDirectory: temporaryDirectory(), flags });
  onTestFinished(() => host.killAll());
  const session = await connectCache({ space: testSpace(), rank: 0, slotBytes: [1024 * 1024], socketPath: host.socketPath }); // prettier-ignore
  const mapping = PoolMapping.open(session.pool.path, session.pool.bytes);
  onTestFinished(async () => {
    await session.close();
    mapping.close();
  });
  const memory = { view: (offset: number, length: number) => mapping.slot(offset, length) };
  const stats = async () => {
    const control = await CacheControl.connect(host.socketPath);
    await using _control = control;
    return control!.stats();
  };
  return {
    ...host,
    stats,
    written: async () =>
      ((await stats())["tiers"] as Record<string, { writtenBytes?: number }>)["mooncake"]?.writtenBytes ?? 0,
    save: (length: number) => save(session, memory, counting(length), { bytes }),
    load: (length: number) => loadAndVerify(session, memory, counting(length), { bytes }),
    lookup: async (length: number) => (await session.lookup(bareRoot, counting(length), wait)).hitTokens,
  };
}

/** Processes of Mooncake's client that a process has started. */
function clientsOf(parent: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const isChild = readFileSync(`/proc/${pid}/status`, "utf8").includes(`\nPPid:\t${parent}\n`);
        return isChild && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("\0reprise_mooncake\0");
      } catch {
        return false; // it has ended
      }
    });
}

describe.skipIf(!isHere)("two hosts and a pool", { timeout: 90_000 }, () => {
  test.each([
    ["by the flag", (address: string) => [address.replace(/\?.*/, ""), ["--mooncake-python", python]] as const],
    ["by the address", (address: string) => [address, []] as const],
  ])("what one has stored the other loads; Python named %s; nothing is left when they end", async (_, say) => {
    await using pool = await startPool();
    const [tier, more] = say(pool.address);
    const [one, two] = [await start(tier, more), await start(tier, more)];
    const clients = [one, two].flatMap(({ pid }) => clientsOf(pid));
    expect(clients).toHaveLength(2);
    await one.save(40);
    await expect.poll(() => one.written(), { timeout: 20_000 }).toBeGreaterThan(0);
    await expect.poll(() => two.load(40), { timeout: 30_000, interval: 500 }).toBe(40);
    expect((await two.stats())["loadedTokens"]).toMatchObject({ mooncake: 40 });
    expect(await one.stop()).toBe(0);
    two.signal("SIGKILL");
    await two.ended;
    await expect.poll(() => clients.filter((pid) => existsSync(`/proc/${pid}/exe`))).toEqual([]);
  });
});

test("a Python that has no Mooncake: the cache starts, and its log says what to install", async () => {
  const host = await start("mooncake://127.0.0.1:1", ["--mooncake-python", "/usr/bin/python3"]);
  await expect
    .poll(() => host.output(), { timeout: 15_000 })
    .toMatch(/pip install mooncake-transfer-engine-non-cuda==/);
  expect(await host.lookup(4)).toBe(0);
  await host.save(4);
  expect(await host.load(4)).toBe(4);
  expect(await host.stop()).toBe(0);
}, 60_000);
