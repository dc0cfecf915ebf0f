import { expect, test } from "vitest";
import { MemoryStore } from "../../../test/support/memory-store.ts";

import type { FoundRecord } from "../../tier.ts";
import { noSignal, recordOf, stored } from "../tier-suite.ts";
import { ValueTier } from "./value-tier.ts";

test("what is remembered of chunks that are said to have many parts is bounded by the parts", async () => {
  const store = new MemoryStore();
  const limits = { keys: [], prefix: "", maxRecordBytes: 2 ** 20 };
  const other = new ValueTier({ store, ...limits });
  const payloads = [Buffer.from("KV"), ...Array.from({ length: 1023 }, () => Buffer.alloc(0))];
  const records = Array.from({ length: 400 }, (_, i) => recordOf(Uint32Array.from([i]), payloads));
  for (const record of records) await stored(other, record, payloads);
  let asked = 0;
  const getAll = store.getAll.bind(store);
  store.getAll = (...given) => {
    asked += 1;
    return getAll(...given);
  };
  const tier = new ValueTier({ store, ...limits });
  const found: FoundRecord[] = [];
  for (const { space, root, key } of records) found.push((await tier.find(space, root, [key], noSignal))[0]!);
  const isAskedFor = async (i: number) => {
    const before = asked;
    const into = [new Uint8Array(2), ...Array.from({ length: 1023 }, () => undefined)];
    expect(await tier.read(found[i]!.id, records[i]!.key, into, noSignal)).toBe("read");
    return asked > before;
  };
  expect(await isAskedFor(0)).toBe(true); // forgotten, and found again
  expect(await isAskedFor(399)).toBe(false);
  expect(await isAskedFor(399 - 255)).toBe(false); // 256 times 1,024 parts
  expect(await isAskedFor(399 - 256)).toBe(true);
});
