/** What keeps lent memory too long is found out by every test: test/support/poisoned-memory.ts is at work. */
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  counting,
  openTestCache,
  save,
  slotBytes,
  temporaryFolder,
  testPool,
  testSpace,
  wait,
} from "../../test/support/cache.ts";
import { bareRoot } from "../identity/keys.ts";
import { type Tokens } from "../identity/tokens.ts";
import { Channel, defaultChannelLimits } from "./channel.ts";
import { encodeFrame } from "./frames.ts";

const noise = 0xa5;

test("a frame's body is noise once it was handled", async () => {
  using folder = temporaryFolder();
  const frame = encodeFrame({ type: "ping" });
  const seen: { readonly handled: Buffer; readonly kept: Buffer }[] = [];
  const server = createServer((socket) => {
    const onFrame = (body: Buffer) => void seen.push({ handled: Buffer.from(body), kept: body });
    return new Channel(socket, defaultChannelLimits, { onFrame, onEnd: () => {} });
  });
  server.listen(join(folder.path, "s"));
  await once(server, "listening");
  const peer = connect(join(folder.path, "s"));
  peer.write(frame);
  await expect.poll(() => seen.length).toBe(1);
  expect(seen[0]!.handled.equals(frame.subarray(4))).toBe(true);
  expect(new Set(seen[0]!.kept)).toEqual(new Set([noise]));
  peer.destroy();
  server.close();
});

test("a text is noise once a session's verb has come to its first await, and a slot once it is taken", async () => {
  const copies: Tokens[] = [];
  class Watched extends Uint32Array<ArrayBuffer> {
    override slice() {
      copies.push(super.slice());
      return copies.at(-1) as Uint32Array<ArrayBuffer>; // pushed above
    }
  }
  const pool = testPool();
  await using cache = await openTestCache({ pool });
  const session = cache.openSession({ space: testSpace(), rank: 0, slotBytes: [slotBytes] });
  await save(session, pool, counting(4));
  const text = Watched.from(counting(4)) as Watched; // of its own kind
  let slot: Uint8Array | undefined;
  for await (const batch of session.load(bareRoot, text, 0, wait)) {
    slot = pool.view(batch[0]!.slot.offset, batch[0]!.slot.bytes); // one was saved
    session.release(batch.map(({ lease }) => lease));
  }
  await session.lookup(bareRoot, text, wait);
  await session.touch(bareRoot, text, wait);
  await session.pin(bareRoot, text, 0, wait);
  await session.reserve(bareRoot, text, wait);
  expect(copies.length).toBeGreaterThanOrEqual(5);
  expect(new Set(copies.flatMap((copy) => [...copy]))).toEqual(new Set([noise]));

  expect(new Set(slot)).not.toEqual(new Set([noise]));
  await cache.clear();
  expect(new Set(slot)).toEqual(new Set([noise]));
});
