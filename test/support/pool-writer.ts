/**
 * A process that fills and empties a pool until it is killed, for test/killed-memory.test.ts.
 *
 *     node pool-writer.js DIRECTORY SEED SMALL   each line: the number of a text all of whose chunks are committed
 *
 * SMALL is the slot size of a second space. One of another size class takes whole extents away from the first: then even a
 * text that was just committed may be gone. It evicts as it goes, and leaves reservations half-written, so that at every moment something is under way.
 */
import { writeSync } from "node:fs";
import { Cache } from "../../src/cache/cache.ts";
import { bareRoot } from "../../src/identity/keys.ts";
import { MemoryPool } from "../../src/tiers/memory.ts";
import { payloadOf, save, testSpace, wait } from "./cache.ts";
import { seededRandom } from "./prompts.ts";
import { killedSlotBytes, killedText, payloadBytesOf } from "./killed-text.ts";

const [directory = "", seed = "", smallSlotBytes = ""] = process.argv.slice(2);
const random = seededRandom(Number(seed));
const pool = MemoryPool.open({ dataDirectory: directory, capacityBytes: 64 * 2 ** 20 });
const cache = await Cache.open({ pool, graceMs: 0 });
await cache.adopted;
const session = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [killedSlotBytes] });
const small = cache.openSession({ space: testSpace({ weights: "22" }), rank: 0, slotBytes: [Number(smallSlotBytes)] });

for (let number = Number(seed) * 10_000; ; number += 1) {
  const text = killedText(number);
  await save(session, pool, text, { bytes: payloadBytesOf(number) });
  // Nothing is stored while all that was adopted is held for the guests of the process before.
  if ((await session.lookup(bareRoot, text, wait)).hitTokens === text.length) writeSync(1, `${number}\n`);
  if (random() < 0.3) await save(small, pool, killedText(number), { bytes: 700 });
  if (random() < 0.3) {
    const { parts } = await session.reserve(bareRoot, killedText(number + 5_000_000), wait);
    for (const { slot, tokenCount } of parts)
      pool.view(slot.offset, 100).set(payloadOf(text.subarray(0, tokenCount), 0, 0, 100));
    if (random() < 0.5) session.abandon(parts.map(({ lease }) => lease));
    else await session.commit([], wait);
    session.abandon(parts.map(({ lease }) => lease));
  }
  // A kill finds the event loop anywhere, not only here.
  if (number % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
}
