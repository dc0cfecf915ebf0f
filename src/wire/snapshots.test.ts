/** A guest with snapshots over the wire sees what one in the cache's own process sees. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { counting, openTestCache, temporaryFolder, testPool } from "../../test/support/cache.ts";
import { hybridSlotBytes, hybridSpace, loadHybrid, saveHybrid } from "../../test/support/hybrid-guest.ts";
import { WireServer } from "./cache/server.ts";
import { connectCache } from "./guest/link.ts";

const options = { space: hybridSpace(), rank: 0, slotBytes: hybridSlotBytes };

test("rows of every chunk and the last snapshot come over the wire, and what is refused is refused by its name", async () => {
  using folder = temporaryFolder();
  const pool = testPool(128 * 2 ** 20);
  await using cache = await openTestCache({ pool });
  const socketPath = join(folder.path, "s");
  await using _server = await WireServer.listen({ socketPath, cache });
  const guest = await connectCache({ ...options, socketPath });
  expect(await saveHybrid(guest, pool, counting(8))).toEqual([2, 1]);
  expect(await saveHybrid(guest, pool, counting(18))).toEqual([3, 1]);
  for (const session of [guest, cache.openSession(options)]) {
    expect(await loadHybrid(session, pool, counting(30))).toEqual({ tokens: 18, partsByGroup: [5, 1] });
    expect(await loadHybrid(session, pool, counting(11))).toEqual({ tokens: 8, partsByGroup: [2, 1] });
  }
  await guest.close();
  for (const [field, change] of [
    ["slotBytes", { slotBytes: [8192] }],
    ["groups", { space: hybridSpace({ groups: ["snapshot"] }), slotBytes: [8192] }],
  ] as const)
    await expect(connectCache({ ...options, ...change, socketPath })).rejects.toThrow(field);
});
