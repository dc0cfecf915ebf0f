/**
 * Takes out of a bucket what has ended its time: what `reprise cache collect` does, from cron, on any host, beside all others.
 *
 *     age     0 ───── ttl / 2 ───── ttl ── + some minutes
 *             in use  touched when used     nobody uses it any more, nor touches it: it goes
 *
 * Age is what the store says by its own clock. Whoever writes an index anew between our look at it and our request to remove it is
 * safe where the store keeps `If-Match` on DELETE; elsewhere it would be a miss. Payloads are never written anew under an old name.
 */
import type { ListedObject, S3Client } from "./s3-client.ts";

export interface CollectOptions {
  readonly client: S3Client;
  readonly ttlSeconds: number;
  /** Of what is left; the oldest go first, also before their time. Undefined: whatever is young enough is left. */
  readonly maxBytes: number | undefined;
  readonly signal: AbortSignal;
}

export interface Collected {
  readonly removedObjects: number;
  readonly removedBytes: number;
  readonly leftObjects: number;
  readonly leftBytes: number;
}

/** A touch may be on its way for a while. */
const graceMs = 300_000;
const atATime = 8;
const secondMs = 1000;

/** @throws RepriseError TIER_UNAVAILABLE; what was removed until then is */
export async function collect(options: CollectOptions): Promise<Collected> {
  const { client, signal } = options;
  const sum = { removedObjects: 0, removedBytes: 0, leftObjects: 0, leftBytes: 0 };
  const limitMs = await limitOf(options);
  const remove = async ({ name, bytes }: ListedObject) => {
    const facts = await client.facts(name, signal);
    if (facts === undefined) return; // another collector was first
    if (facts.ageMs <= limitMs) leave(bytes);
    else {
      await client.remove(name, facts.etag, signal);
      sum.removedObjects += 1;
      sum.removedBytes += bytes;
    }
  };
  const leave = (bytes: number) => {
    sum.leftObjects += 1;
    sum.leftBytes += bytes;
  };
  // Indexes before what they point to: readers then look for less in vain.
  for (const folder of ["i", "d"]) {
    let underWay: Promise<void>[] = [];
    for await (const object of client.list(folder, signal)) {
      if (object.ageMs <= limitMs) leave(object.bytes);
      else underWay.push(remove(object));
      if (underWay.length < atATime) continue;
      await Promise.all(underWay);
      underWay = [];
    }
    await Promise.all(underWay);
  }
  return sum;
}

/** The age beyond which objects go. */
async function limitOf({ client, ttlSeconds, maxBytes, signal }: CollectOptions): Promise<number> {
  const ttlMs = ttlSeconds * 1000 + graceMs;
  if (maxBytes === undefined) return ttlMs;
  // Bytes by seconds of age: a bucket of many million objects is not kept in memory.
  const bySecond = new Map<number, number>();
  for (const folder of ["i", "d"])
    for await (const { ageMs, bytes } of client.list(folder, signal)) {
      const second = Math.ceil(ageMs / secondMs);
      bySecond.set(second, (bySecond.get(second) ?? 0) + bytes);
    }
  let left = 0;
  for (const [second, bytes] of [...bySecond].sort(([a], [b]) => a - b)) {
    left += bytes;
    if (left > maxBytes) return Math.min(ttlMs, Math.max(0, (second - 1) * secondMs));
  }
  return ttlMs;
}
