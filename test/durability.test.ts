import { spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, test } from "vitest";
import { noSignal, recoverAll } from "../src/tiers/tier-suite.ts";
import { DiskTier } from "../src/tiers/disk/disk-tier.ts";
import { temporaryFolder } from "./support/cache.ts";

/** Compiled here, since the child is a plain Node process. */
const build = fileURLToPath(new URL("../node_modules/.cache/reprise-durability", import.meta.url));

beforeAll(() => {
  const tsc = fileURLToPath(new URL("../node_modules/typescript/bin/tsc", import.meta.url));
  const project = fileURLToPath(new URL("../tsconfig.build.json", import.meta.url));
  const done = spawnSync(process.execPath, [tsc, "-p", project, "--outDir", build], { encoding: "utf8" });
  if (done.status !== 0) throw new Error(done.stdout);
});

/** Writes records until it is killed; says the number of each one that was acknowledged. */
const writer = (directory: string, capacityBytes: number, first: number) => `
  import { DiskTier } from ${JSON.stringify(`${build}/tiers/disk/disk-tier.js`)};
  import { chunkKey } from ${JSON.stringify(`${build}/cache/chunk.js`)};
  const tier = await DiskTier.open({ drives: [{ directory: ${JSON.stringify(directory)}, capacityBytes: ${capacityBytes} }] });
  for await (const _ of tier.recover({ isWanted: () => false, onEvicted() {}, onMoved() {} }));
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

/** A night of it: REPRISE_KILLS=1000. */
const kills = Number(process.env["REPRISE_KILLS"] ?? 24);

test(
  "killed at any moment, the disk tier has every acknowledged record, and none that is wrong",
  async () => {
    using folder = temporaryFolder();
    const capacityBytes = 256 * 2 ** 20;
    const acknowledged = new Set<number>();
    let next = 1;
    for (let round = 0; round < kills; round += 1) {
      // A fresh directory before evictions begin: what goes for want of room is no loss.
      const directory = join(folder.path, String(Math.floor(round / 50)));
      if (round % 50 === 0) acknowledged.clear();
      const child = spawn(process.execPath, ["--input-type=module", "-e", writer(directory, capacityBytes, next)]);
      const target = 1 + ((round * 37) % 60);
      let seen = 0;
      for await (const line of createInterface({ input: child.stdout })) {
        acknowledged.add(Number(line));
        next = Math.max(next, Number(line) + 10);
        seen += 1;
        if (seen === target) child.kill("SIGKILL");
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
  60_000 + kills * 5_000,
);
