/** Chunks of several parts between hosts: ranks of tensor parallelism, and snapshots of recurrent layers. */
import { expect, test } from "vitest";
import { counting, loadAndVerify, save, slotBytes, temporaryFolder, testSpace } from "../../test/support/cache.ts";
import { hybridSlotBytes, hybridSpace, loadHybrid, saveHybrid } from "../../test/support/hybrid-guest.ts";
import { peersOf, startHost, type TestHost } from "../../test/support/peers.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";

const poolBytes = 128 * 2 ** 20;

test("each rank has its own part of what another host's ranks have saved", async () => {
  const space = testSpace({ tensorParallel: 2 });
  const sessionsOf = ({ cache }: TestHost) =>
    [0, 1].map((rank) => cache.openSession({ space, rank, slotBytes: [slotBytes] }));
  await using far = await startHost();
  for (const [rank, session] of sessionsOf(far).entries()) await save(session, far.pool, counting(42), { rank });
  await using near = await startHost({ tiers: [await peersOf([far.address])] });
  const loads = sessionsOf(near).map((session, rank) => loadAndVerify(session, near.pool, counting(42), { rank }));
  expect(await Promise.all(loads)).toEqual([42, 42]);
  expect(far.server.stats().servedChunks).toBe(11); // both ranks' parts at once
});

test("of a text with snapshots the rows come, and the last snapshot; also from the disk", async () => {
  using folder = temporaryFolder();
  const disk = await DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 64 * 2 ** 20 }] });
  const options = { space: hybridSpace(), rank: 0, slotBytes: hybridSlotBytes };
  await using far = await startHost({ poolBytes, slotBytes: 2 ** 20, tiers: [disk] });
  const session = far.cache.openSession(options);
  await saveHybrid(session, far.pool, counting(8));
  await saveHybrid(session, far.pool, counting(18));
  const load = async () => {
    await using near = await startHost({ poolBytes, tiers: [await peersOf([far.address])] });
    return await loadHybrid(near.cache.openSession(options), near.pool, counting(18));
  };
  expect(await load()).toEqual({ tokens: 18, partsByGroup: [5, 1] });
  await far.cache.flush();
  await far.save(800, 1_000_000, 1000); // other slots: what was there leaves memory
  expect(far.cache.stats().evictedChunks).toBeGreaterThan(0);
  expect(await load()).toEqual({ tokens: 18, partsByGroup: [5, 1] });
  expect(far.cache.stats().leases).toBe(0);
});
