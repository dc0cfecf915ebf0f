/** Two hosts under load while what they share is killed, cut off, filled up and damaged: nothing wrong, nothing failed, nothing left. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { allEnded } from "../src/tiers/shared/all-ended.ts";
import { ValueTier } from "../src/tiers/shared/value-tier.ts";
import { parseValkeyAddress } from "../src/tiers/valkey/address.ts";
import { ValkeyStore } from "../src/tiers/valkey/valkey-store.ts";
import { counting, loadAndVerify, openTestCache, save, testPool, testSpace } from "./support/cache.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { rounds, seedOr, timeoutMs } from "./support/depth.ts";
import { bucketLane, damageTenth, peerLane, valkeyLane } from "./support/faults/lanes.ts";
import { runFaults } from "./support/faults/run-faults.ts";
import { programs, startStore } from "./support/valkey.ts";

/** Side by side, since what they wait for is mostly time. `bench/shared-faults.ts` makes two hundred. */
const lanes = [
  { name: "valkey", open: valkeyLane, count: { small: 2, full: 9 } },
  { name: "bucket", open: bucketLane, count: { small: 2, full: 10 } },
  { name: "peer", open: peerLane, count: { small: 2, full: 6 } },
].filter(({ open }) => open !== valkeyLane || programs.length > 0);

test(
  "hosts that share Valkey, a bucket or each other answer rightly whatever happens to it, and nothing is left",
  async () => {
    const folder = temporaryDirectory();
    const reports = await allEnded(
      lanes.map(async ({ name, open, count }) => {
        await using lane = await open(join(folder, name));
        return await runFaults(lane, { count: rounds(count), seed: seedOr(1) }); // before the lane is closed
      }),
    );
    for (const report of reports) {
      expect(report.leases).toBe(0);
      expect(report.sharedTokens).toBeGreaterThan(0);
      for (const mebibytes of report.grownMiB) expect(mebibytes).toBeLessThan(150);
    }
  },
  timeoutMs(400_000),
);

test.skipIf(programs.length === 0)(
  "of 10,000 values 1,000 are damaged: every other chunk is read, and none of these",
  async () => {
    await using server = await startStore();
    const texts = Array.from({ length: 500 }, (_, i) => counting(40, 1 + 100 * i)); // ten chunks each: a head and a payload
    const open = async () => {
      const store = new ValkeyStore(parseValkeyAddress(`valkey://127.0.0.1:${server.port}`));
      const pool = testPool();
      const tier = new ValueTier({ store, keys: [], prefix: "reprise:", maxRecordBytes: 2 ** 20 });
      const cache = await openTestCache({ pool, tiers: [tier], retryMs: 20 });
      const session = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [4096] });
      return { cache, pool, session, [Symbol.asyncDispose]: () => cache.close() };
    };
    {
      await using a = await open();
      for (const text of texts) await save(a.session, a.pool, text);
      const written = async () => {
        await a.cache.flush();
        return server.command("DBSIZE");
      };
      await expect.poll(written, { timeout: 30_000 }).toBe(10_000);
    }
    expect(await server.command("EVAL", damageTenth, "0", "3", "7")).toBe(1000);
    await using b = await open();
    const loaded = async () => {
      let tokens = 0;
      for (const text of texts) tokens += await loadAndVerify(b.session, b.pool, text); // throws at a byte that is wrong
      return tokens;
    };
    const most = 500 * 40;
    // The first may be asked for before the store is connected.
    await expect.poll(loaded, { timeout: 30_000 }).toBeGreaterThan(most / 5);
    expect(await loaded()).toBeLessThan(most * 0.8);
    expect(b.cache.stats()).toMatchObject({ leases: 0 });
    // What is missed is computed, and stored anew. A damaged chunk behind another is met only after that, so a text may take several times.
    for (const text of texts)
      for (let times = 0; (await loadAndVerify(b.session, b.pool, text)) < 40; times += 1) {
        expect(times).toBeLessThan(10); // chunks
        await save(b.session, b.pool, text);
      }
    b.cache.check();
  },
  timeoutMs(60_000),
);
