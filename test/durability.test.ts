/**
 * A process that writes is killed, again and again, and what it acknowledged is looked for.
 *
 * A long run in pieces that may go side by side, each with moments of its own:
 * `REPRISE_TEST_DEPTH=10 REPRISE_TEST_SEED=2 npx vitest run test/durability.test.ts`
 */
import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { noSignal, recoverAll } from "../src/tiers/tier-suite.ts";
import { DiskTier } from "../src/tiers/disk/disk-tier.ts";
import { temporaryFolder } from "./support/cache.ts";
import { rounds, seedOr } from "./support/depth.ts";
import { seededRandom } from "./support/prompts.ts";

/** The child is a plain Node process: it runs what was built. */
const build = fileURLToPath(new URL("../dist", import.meta.url));

/**
 * Writes records until it is killed; says the number of each one that was acknowledged. Meanwhile it drops what it found of
 * every third and compacts: the others are moved under the kill.
 */
const writer = (directory: string, capacityBytes: number, first: number) => `
  import { DiskTier } from ${JSON.stringify(`${build}/tiers/disk/disk-tier.js`)};
  import { chunkKey } from ${JSON.stringify(`${build}/identity/keys.js`)};
  const tier = await DiskTier.open({ drives: [{ directory: ${JSON.stringify(directory)}, capacityBytes: ${capacityBytes} }] });
  for await (const batch of tier.recover({ isWanted: () => false, onEvicted() {}, onMoved() {} }))
    for await (const { id, tokens } of batch.records()) if (tokens[0] % 3 === 0) tier.drop(id);
  void tier.compact(new AbortController().signal);
  const root = "00".repeat(32);
  async function write(i) {
    const tokens = Uint32Array.from([i]);
    const payload = Buffer.alloc(20000 + (i % 7) * 9000, i & 255);
    payload.writeUInt32LE(i);
    const record = { space: root, root, key: chunkKey(root, tokens), parent: root, firstToken: 0, tokens, payloadBytes: [payload.length] };
    await tier.write(record, [payload], new AbortController().signal);
    process.stdout.write(i + "\\n");
  }
  for (let i = ${first}; ; i += 4) await Promise.all([write(i), write(i + 1), write(i + 2), write(i + 3)]);
`;

const kills = rounds({ small: 4, full: 24 });

test(
  "killed at any moment, compacting too, the disk tier has every acknowledged record, and none that is wrong",
  async () => {
    using folder = temporaryFolder();
    const random = seededRandom(seedOr(1));
    const capacityBytes = 256 * 2 ** 20;
    const acknowledged = new Set<number>();
    let directory = folder.path;
    let next = 1;
    for (let round = 0; round < kills; round += 1) {
      // A fresh directory before evictions begin: what goes for want of room is no loss.
      if (round % 20 === 0) {
        if (round > 0) rmSync(directory, { recursive: true });
        directory = join(folder.path, String(round));
        acknowledged.clear();
      }
      const child = spawn(process.execPath, ["--input-type=module", "-e", writer(directory, capacityBytes, next)]);
      const target = 1 + Math.floor(60 * random());
      const afterMs = 10 * random();
      let seen = 0;
      for await (const line of createInterface({ input: child.stdout })) {
        if (Number(line) % 3 !== 0) acknowledged.add(Number(line));
        next = Math.max(next, Number(line) + 10);
        seen += 1;
        if (seen === target) void sleep(afterMs).then(() => child.kill("SIGKILL"));
      }
      expect(seen).toBeGreaterThanOrEqual(target);

      await using tier = await DiskTier.open({ drives: [{ directory, capacityBytes }] });
      const found = new Set<number>();
      for (const record of await recoverAll(tier)) {
        const into = Buffer.alloc(record.payloadBytes[0]!);
        expect(await tier.read(record.id, record.key, [into], noSignal)).toBe("read");
        const i = record.tokens[0]!;
        expect(into.readUInt32LE()).toBe(i);
        expect(into.subarray(4).every((byte) => byte === (i & 255))).toBe(true);
        found.add(i);
      }
      expect([...acknowledged].filter((i) => !found.has(i))).toEqual([]);
      expect(tier.stats().corruptRecords).toBe(0);
    }
  },
  60_000 + kills * 30_000, // at the lowest priority of a busy machine
);
