import { expect, test, vi } from "vitest";
import { SharedStore, SharedTier, unanswered } from "../../../test/support/shared-tier.ts";
import { counting, openTestCache, save, slotBytes, testPool, testSpace } from "../../../test/support/cache.ts";
import { bareRoot } from "../../identity/keys.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };

test("a shared tier that hangs in a write or a read gives the slots back after half a minute", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const store = new SharedStore();
    const tier = new SharedTier(store);
    const pool = testPool();
    await using cache = await openTestCache({ pool, tiers: [tier], retryMs: 1000 });
    const session = cache.openSession(options);
    tier.beforeWrite = unanswered;
    await save(session, pool, counting(40));
    await vi.advanceTimersByTimeAsync(29_000);
    expect(cache.stats().writeBehind).toMatchObject({ chunks: 10, bytes: 10 * slotBytes });
    await vi.advanceTimersByTimeAsync(1500);
    await vi.waitFor(() => expect(cache.stats().writeBehind).toMatchObject({ chunks: 0, waitingChunks: 10 }));
    tier.beforeWrite = async () => {};
    await vi.advanceTimersByTimeAsync(1000);
    await vi.waitFor(() => expect(store.records.size).toBe(10));

    await cache.clear(); // the store keeps them
    tier.beforeRead = unanswered;
    const load = session.load(bareRoot, counting(40), 0, { deadlineMs: 60_000 }).next();
    await vi.waitFor(() => expect(tier.counts.reads).toBe(10));
    expect(pool.stats().usedSlots).toBe(10);
    await vi.advanceTimersByTimeAsync(30_000);
    expect((await load).done).toBe(true);
    await vi.waitFor(() => expect(pool.stats().usedSlots).toBe(0));
    cache.check();
  } finally {
    vi.useRealTimers();
  }
});
