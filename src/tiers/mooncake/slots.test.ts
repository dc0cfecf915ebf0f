import { expect, onTestFinished, test } from "vitest";
import { noSignal } from "../tier-suite.ts";
import { slotCount, Slots, type Slot } from "./slots.ts";

function slotsOf(): Slots {
  const slots = new Slots();
  onTestFinished(() => slots.close());
  return slots;
}

test("lookups have slots that no payload takes, and payloads get theirs when they are free", async () => {
  const slots = slotsOf();
  const given: Slot[] = [];
  const payloads = Array.from({ length: slotCount + 4 }, () =>
    slots.take("payload", noSignal).then((slot) => given.push(slot)),
  );
  const lookups = [await slots.take("lookup", noSignal), await slots.take("lookup", noSignal)];
  expect(given).toHaveLength(slotCount - 2);
  const third = slots.take("lookup", noSignal); // before the payloads that wait longer
  slots.give(given.shift()!);
  lookups.push(await third);
  for (const slot of lookups) slots.give(slot);
  await expect.poll(() => given.length).toBe(slotCount - 2); // the two others stay free, for lookups
  while (given.length > 0) {
    slots.give(given.shift()!);
    await Promise.resolve();
  }
  await Promise.all(payloads);
  const all = await Promise.all(Array.from({ length: slotCount }, () => slots.take("lookup", noSignal)));
  expect(new Set(all.map(({ at }) => at)).size).toBe(slotCount);
});

test("whoever waits leaves with its signal, and the slot goes to the next", async () => {
  const slots = slotsOf();
  const all = await Promise.all(Array.from({ length: slotCount }, () => slots.take("lookup", noSignal)));
  const leaves = new AbortController();
  const left = slots.take("payload", leaves.signal);
  const next = slots.take("lookup", noSignal);
  leaves.abort();
  await expect(left).rejects.toThrow("it did not answer in time");
  slots.give(all[0]!);
  expect(await next).toBe(all[0]);
});
