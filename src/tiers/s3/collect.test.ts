import { afterAll, beforeEach, expect, test } from "vitest";
import { startFakeS3 } from "../../../test/support/fake-s3.ts";
import { readText, textOf, writeText, type Text } from "../../../test/support/s3-texts.ts";
import { clientOf, tierOf } from "../../../test/support/s3.ts";
import { collect, type Collected } from "./collect.ts";

const fake = await startFakeS3();
afterAll(() => fake[Symbol.asyncDispose]());

const dayMs = 86_400_000;
const ttlSeconds = 86_400;
let now = 0;
beforeEach(() => {
  fake.objects.clear();
  fake.requests.length = 0;
  fake.meddle = () => undefined;
  now = Date.now();
  fake.now = () => now;
});

function collected(maxBytes?: number): Promise<Collected> {
  return collect({ client: clientOf(fake), ttlSeconds, maxBytes, signal: new AbortController().signal });
}

test("what nobody used for its time goes, and what was used stays, however old it is", async () => {
  const [used, unused] = [textOf(10), textOf(10)];
  for (const text of [used, unused]) await writeText(tierOf(fake), text);
  const objects = fake.objects.size;
  for (let day = 0; day < 5; day += 1) {
    now += 0.7 * dayMs;
    expect(await readText(tierOf(fake), used)).toBe(10);
    const touched = () => [...fake.objects.values()].filter(({ modified }) => modified === now).length;
    await expect.poll(touched, { timeout: 5000 }).toBeGreaterThan(0);
    for (let tries = 0; tries < 5; tries += 1) await readText(tierOf(fake), used); // some are touched at a time
    await collected();
  }
  expect(fake.objects.size).toBeLessThan(objects);
  expect(await readText(tierOf(fake), used)).toBe(10);
  expect(await readText(tierOf(fake), unused)).toBe(0);
  now += 1.1 * dayMs;
  expect(await collected()).toMatchObject({ leftObjects: 0, leftBytes: 0 });
  expect(fake.objects.size).toBe(0);
});

test("what has ended its time is as good as gone for readers and writers, collected or not", async () => {
  const text = textOf(10);
  await writeText(tierOf(fake), text);
  now += 1.01 * dayMs; // within the collector's grace
  expect(await readText(tierOf(fake), text)).toBe(0);
  await writeText(tierOf(fake), text);
  await collected();
  now += 0.4 * dayMs;
  await collected();
  expect(await readText(tierOf(fake), text)).toBe(10);
});

test("beside writers and readers nothing that is live is lost", async () => {
  const texts: Text[] = Array.from({ length: 12 }, () => textOf(12));
  for (const text of texts) await writeText(tierOf(fake), text);
  now += 2 * dayMs;
  // All of it is dead, and is written anew while collectors run.
  const written = new AbortController();
  const collectors = [1, 2].map(async () => {
    while (!written.signal.aborted) await collected();
  });
  for (const text of texts) await writeText(tierOf(fake), text);
  written.abort();
  await Promise.all(collectors);
  await collected();
  for (const text of texts) expect(await readText(tierOf(fake), text)).toBe(12);
});

test("an index that is written anew between look and removal stays", async () => {
  const text = textOf(3);
  await writeText(tierOf(fake), text);
  now += 2 * dayMs;
  let isDone = false;
  fake.meddle = ({ method }) => {
    if (method !== "DELETE" || isDone) return undefined;
    isDone = true;
    return { delayMs: 200 };
  };
  const collecting = collected();
  await expect.poll(() => isDone).toBe(true);
  await writeText(tierOf(fake), text);
  await collecting;
  expect(await readText(tierOf(fake), text)).toBe(3);
});

test("with a bound the oldest go first until it is kept", async () => {
  const texts = Array.from({ length: 5 }, () => textOf(4, { bytes: 10_000 }));
  for (const text of texts) {
    await writeText(tierOf(fake), text);
    now += 60_000;
  }
  const { leftBytes } = await collected(150_000);
  expect(leftBytes).toBeLessThanOrEqual(150_000);
  const left = await Promise.all(texts.map((text) => readText(tierOf(fake), text)));
  expect(left).toEqual([0, 0, 4, 4, 4]);
});

test("what others have in the bucket is not looked at", async () => {
  const stranger = clientOf(fake, "test2");
  await stranger.put("d/a", [Buffer.from("theirs")], { ifAbsent: false }, new AbortController().signal);
  fake.objects.set("test/readme", { bytes: Buffer.alloc(1), modified: 0, etag: "" });
  now += 9 * dayMs;
  expect(await collected()).toEqual({ removedObjects: 0, removedBytes: 0, leftObjects: 0, leftBytes: 0 });
  expect(fake.objects.size).toBe(2);
});
