/** Texts that arrive in several reads, many at once: the reads' memory is used again and given back while others wait. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { openTestCache, slotBytes, temporaryFolder, testPool, testSpace, wait } from "../../test/support/cache.ts";
import { gated, halted } from "../../test/support/late-tier.ts";
import { bareRoot } from "../identity/keys.ts";
import { type Tokens } from "../identity/tokens.ts";
import { DiskTier } from "../tiers/disk/disk-tier.ts";
import { connectCache } from "./guest/link.ts";
import { WireServer } from "./cache/server.ts";

const chunkTokens = 1024;
const options = { space: testSpace({ chunkTokens }), rank: 0, slotBytes: [slotBytes] };

/** 160 KiB and more: three reads. Every chunk of every text differs from all others. */
function textOf(number: number): Tokens {
  return Uint32Array.from({ length: (40 + (number % 5)) * chunkTokens }, (_, at) => number * 1_000_000 + at);
}

test("long texts sent at once by several guests are stored, found, pinned and loaded as what they are", async () => {
  using folder = temporaryFolder();
  const socketPath = join(folder.path, "s");
  await using cache = await openTestCache({ pool: testPool(256 * 2 ** 20) });
  await using _server = await WireServer.listen({ socketPath, cache });
  const guests = await Promise.all([0, 1, 2].map(() => connectCache({ ...options, socketPath })));
  const texts = Array.from({ length: 24 }, (_, number) => textOf(number));

  await Promise.all(
    texts.map(async (text, i) => {
      const guest = guests[i % guests.length]!; // there are three
      const { parts } = await guest.reserve(bareRoot, text, wait);
      expect(parts).toHaveLength(text.length / chunkTokens);
      await guest.commit(
        parts.map(({ lease }) => ({ lease, bytes: 100 })),
        wait,
      );
    }),
  );

  // In the cache's own process, past the socket: the tokens under which they lie are the right ones.
  const inside = cache.openSession(options);
  for (const text of texts) expect((await inside.lookup(bareRoot, text, wait)).hitTokens).toBe(text.length);
  expect(cache.stats().chunks).toBe(texts.reduce((sum, { length }) => sum + length / chunkTokens, 0));

  await Promise.all(
    texts.flatMap((text, i) => {
      const guest = guests[(i + 1) % guests.length]!; // there are three
      const load = async () => {
        let tokens = 0;
        for await (const batch of guest.load(bareRoot, text, 0, wait)) {
          for (const { take } of batch) tokens += take;
          guest.release(batch.map(({ lease }) => lease));
        }
        return tokens;
      };
      return [
        guest.lookup(bareRoot, text, wait).then(({ hitTokens }) => expect(hitTokens).toBe(text.length)),
        guest.touch(bareRoot, text, wait).then((hitTokens) => expect(hitTokens).toBe(text.length)),
        guest.pin(bareRoot, text, 0, wait).then((pinned) => expect(pinned).toBe(text.length)),
        load().then((tokens) => expect(tokens).toBe(text.length)),
      ];
    }),
  );
  for (const guest of guests) await guest.close();
  cache.check();
});

test("long texts that a disk has yet to bring back are found and loaded as what they are, not as those that came after them", async () => {
  using folder = temporaryFolder();
  const openDisk = () => DiskTier.open({ drives: [{ directory: folder.path, capacityBytes: 64 * 2 ** 20 }] });
  const stored = Array.from({ length: 4 }, (_, number) => textOf(number));
  {
    await using cache = await openTestCache({ tiers: [await openDisk()] });
    const session = cache.openSession(options);
    for (const [i, text] of stored.entries()) {
      const { parts } = await session.reserve(bareRoot, text, wait);
      await session.commit(
        parts.map(({ lease }) => ({ lease, bytes: 100 + i })),
        wait,
      );
    }
    await cache.flush();
  }
  const { promise, open } = gated();
  await using cache = await openTestCache({ tiers: [halted(await openDisk(), promise)] });
  const socketPath = join(folder.path, "s");
  await using _server = await WireServer.listen({ socketPath, cache });
  const guest = await connectCache({ ...options, socketPath });

  // One connection: the memory in which a question came is used again for the next one while the disk is read.
  await Promise.all(
    [...stored, ...stored.map((_, i) => textOf(100 + i))].flatMap((text, i) => {
      const expected = i < stored.length ? text.length : 0;
      const load = async () => {
        let tokens = 0;
        for await (const batch of guest.load(bareRoot, text, 0, wait)) {
          for (const { take, slot } of batch) {
            expect(slot.bytes).toBe(100 + i);
            tokens += take;
          }
          guest.release(batch.map(({ lease }) => lease));
        }
        return tokens;
      };
      return [
        guest.lookup(bareRoot, text, wait).then(({ hitTokens }) => expect(hitTokens).toBe(expected)),
        load().then((tokens) => expect(tokens).toBe(expected)),
      ];
    }),
  );
  open();
  await guest.close();
  cache.check();
}, 20_000);
