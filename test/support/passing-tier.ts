/** A log that hands everything on to another, for tests that change one of its verbs. */
import type { LogTier } from "../../src/tier.ts";

export function passing(tier: LogTier): LogTier {
  return {
    name: tier.name,
    find: (space, root, keys, signal) => tier.find(space, root, keys, signal),
    recover: (owner) => tier.recover(owner),
    write: (record, payloads, signal) => tier.write(record, payloads, signal),
    read: (id, key, into, signal) => tier.read(id, key, into, signal),
    has: (id) => tier.has(id),
    checksums: (id) => tier.checksums(id),
    countHit: (id) => tier.countHit(id),
    drop: (id) => tier.drop(id),
    clear: () => tier.clear(),
    compact: (signal) => tier.compact(signal),
    flush: () => tier.flush(),
    stats: () => tier.stats(),
    [Symbol.asyncDispose]: () => tier[Symbol.asyncDispose](),
  };
}
