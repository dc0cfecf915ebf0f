import { join } from "node:path";
import { expect, test } from "vitest";
import {
  counting,
  loadAndVerify,
  openTestCache,
  save,
  slotBytes,
  temporaryFolder,
  testSpace,
  wait,
  prefix,
} from "../../test/support/cache.ts";
import { bareRoot } from "../identity/keys.ts";
import { PoolMapping } from "../ffi/pool-mapping.ts";
import { connectCache } from "./guest/link.ts";
import { WireServer } from "./cache/server.ts";

const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };

test("a guest in another place saves and loads through the pool it maps", async () => {
  using folder = temporaryFolder();
  await using cache = await openTestCache();
  const socketPath = join(folder.path, "cache.sock");
  await using server = await WireServer.listen({ socketPath, cache });
  const guest = await connectCache({ ...options, socketPath });
  const mapping = PoolMapping.open(guest.pool.path, guest.pool.bytes);
  const memory = { view: (offset: number, bytes: number) => mapping.slot(offset, bytes) };

  const tokens = counting(10);
  expect(await save(guest, memory, tokens)).toBe(3);
  expect(await guest.lookup(bareRoot, tokens, wait)).toEqual({
    hitTokens: 10,
    segments: prefix([10, "memory"]),
    worthTokens: 10,
  });
  expect(await loadAndVerify(guest, memory, tokens)).toBe(10);
  expect(await guest.touch(bareRoot, counting(12), wait)).toBe(10);
  expect(await guest.prefetch(bareRoot, counting(12), wait)).toBe(10);
  expect(await guest.pin(bareRoot, counting(12), 60, wait)).toBe(10);
  expect(await guest.stats(wait)).toMatchObject({ pinnedBytes: 3 * slotBytes });
  expect(await guest.pin(bareRoot, counting(12), 0, wait)).toBe(10);
  expect(await guest.ping(wait)).toBe(true);
  expect(await guest.stats(wait)).toMatchObject({ savedChunks: 3, sessions: 1 });
  cache.check();

  await guest.close();
  mapping.close();
  expect(server.connections).toBe(0);
  expect(cache.stats()).toMatchObject({ leases: 0, sessions: 0 });
});
