import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { numbers } from "../../../test/support/kv-sample.ts";
import { blockBytes } from "../../tiers/shared/packing.ts";
import { type OutgoingBlock, PackRoom } from "./pack-room.ts";

const room = PackRoom.open();

const isPacked = ({ bytes }: OutgoingBlock) => bytes.length < blockBytes;

test.skipIf(room === undefined)(
  "blocks beyond the room go as they are, at once, and are packed again when there is some",
  async () => {
    const few = PackRoom.open()!; // there is libzstd
    const block = numbers(blockBytes);
    const held: OutgoingBlock[] = [];
    const pack = few.payload();
    for (;;) {
      const next = await pack(block);
      if (!isPacked(next)) break;
      held.push(next);
    }
    expect(held).toHaveLength(32);
    const others = Array.from({ length: 100 }, () => few.payload()(block));
    expect((await Promise.all(others)).every(({ bytes }) => bytes === block)).toBe(true);
    held.pop()!.free(); // there are 32
    const again = await pack(block);
    expect(isPacked(again)).toBe(true);
    again.free();
  },
);

test.skipIf(room === undefined)(
  "what did not become smaller at its beginning is not tried again, and takes no room",
  async () => {
    const noise = randomBytes(blockBytes);
    const pack = room!.payload(); // there is libzstd
    for (const block of [noise, numbers(blockBytes), noise.subarray(0, 100)]) {
      const { row, bytes } = await pack(block);
      expect([row, bytes === block]).toEqual([[block.length], true]);
    }
    const mixed = room!.payload();
    const all = [];
    for (const block of [numbers(blockBytes), noise, numbers(blockBytes)]) all.push(await mixed(block));
    expect(all.map(isPacked)).toEqual([true, false, true]);
    for (const { free } of all) free();
  },
);

test.skipIf(room === undefined)("it is idle when no thread reads a block that it was given", async () => {
  const own = PackRoom.open()!; // there is libzstd
  let packed = 0;
  for (let i = 0; i < 20; i += 1)
    void own
      .payload()(numbers(blockBytes))
      .then(() => (packed += 1));
  await own.idle();
  await new Promise(setImmediate); // whoever waits for the last is told
  expect(packed).toBe(20);
});
