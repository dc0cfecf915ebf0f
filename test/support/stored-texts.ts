/** A shared store to which another cache has written texts. */
import type { Root } from "../../src/identity/keys.ts";
import type { Tokens } from "../../src/identity/tokens.ts";
import type { SessionOptions } from "../../src/session.ts";
import { openTestCache, save, testPool } from "./cache.ts";
import { SharedStore, SharedTier } from "./shared-tier.ts";

/** @param how `bytes`: of a payload, as for {@link save} */
export async function storeWith(
  texts: readonly Tokens[],
  options: SessionOptions,
  { capacityBytes, ...how }: { readonly root?: Root; readonly bytes?: number; readonly capacityBytes?: number } = {},
): Promise<SharedStore> {
  const store = new SharedStore(capacityBytes);
  const pool = testPool();
  await using cache = await openTestCache({ pool, tiers: [new SharedTier(store)] });
  const session = cache.openSession(options);
  for (const text of texts) {
    await save(session, pool, text, how);
    await cache.flush();
  }
  return store;
}
