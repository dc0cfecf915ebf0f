import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { startFakeS3 } from "../../../test/support/fake-s3.ts";
import { kvSample } from "../../../test/support/kv-sample.ts";
import { tierOf } from "../../../test/support/s3.ts";
import { readText, type Text, writeText } from "../../../test/support/s3-texts.ts";
import { openZstd } from "../../ffi/zstd.ts";
import type { ChunkRecord } from "../../tier.ts";
import { PayloadPacker } from "../shared/packing.ts";
import { TierKey } from "../shared/tier-keys.ts";
import { noSignal, recordOf } from "../tier-suite.ts";

/** Chunks whose parts pack, hardly pack, and do not. */
function textOf(chunks: number): Text {
  const records: ChunkRecord[] = [];
  const payloads = Array.from({ length: chunks }, (_, i) => {
    const own = Buffer.from(kvSample("bf16"));
    own.writeUInt32LE(i, 8000);
    return [own, Buffer.alloc(0), randomBytes(3000 + i), kvSample("q8_0"), Buffer.from([i])];
  });
  for (const [i, each] of payloads.entries()) records.push(recordOf(Uint32Array.from([77, i]), each, records.at(-1)));
  return { records, payloads };
}

const packer = PayloadPacker.open();
const keys = [new TierKey(randomBytes(32))];

test.skipIf(openZstd() === undefined).each([
  ["open", []],
  ["sealed", keys],
] as const)("a text that one host packs is read by all that can, and is smaller (%s)", async (_, tierKeys) => {
  await using server = await startFakeS3();
  const options = { prefix: "packed", keys: tierKeys };
  await using packing = tierOf(server, { ...options, packer, compress: "lossless" });
  const text = textOf(20);
  expect(await writeText(packing, text)).not.toContain("rejected");
  const { writtenStoredBytes, usedBytes } = packing.stats();
  const writtenBytes = text.payloads.flat().reduce((sum, { length }) => sum + length, 0);
  expect(writtenStoredBytes).toBeLessThan(0.85 * writtenBytes);
  expect(usedBytes).toBe(writtenStoredBytes);

  await using plain = tierOf(server, { ...options, packer });
  expect(await readText(plain, text)).toBe(20);
  expect(plain.stats()).toMatchObject({
    corruptRecords: 0,
    readStoredBytes: writtenStoredBytes,
  });

  // Parts that are not wanted lie between those that are.
  const { space, root } = text.records[0]!;
  const found = await plain.find(space, root, text.records.map(({ key }) => key), noSignal); // prettier-ignore
  const last = new Uint8Array(kvSample("q8_0").length);
  const into = [undefined, undefined, undefined, last, undefined];
  expect(await plain.read(found[7]!.id, text.records[7]!.key, into, noSignal)).toBe("read");
  expect(Buffer.compare(last, kvSample("q8_0"))).toBe(0);

  // Without libzstd it is another version's.
  await using without = tierOf(server, options);
  expect(await readText(without, text)).toBe(0);
  expect(without.stats().corruptRecords).toBe(0);
});
