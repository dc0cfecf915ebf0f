import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { RecordId } from "../src/tier.ts";
import { DiskTier } from "../src/tiers/disk/disk-tier.ts";
import { MemoryPool } from "../src/tiers/memory.ts";
import { noSignal, recordOf, recoverAll } from "../src/tiers/tier-suite.ts";
const [mode = "read", passesText = "4", chunkText = "2097152", depthText = "8"] = process.argv.slice(2);
const chunkBytes = Number(chunkText),
  depth = Number(depthText),
  passes = Number(passesText);
const count = Math.floor(2 ** 30 / chunkBytes);
const directory = mkdtempSync("/var/tmp/reprise-scratch-");
const pool = MemoryPool.open({ capacityBytes: Math.max(2 ** 26, 8 * depth * chunkBytes) });
const slots = Array.from({ length: depth }, () => pool.view(pool.allocate(chunkBytes) as number, chunkBytes));
for (const [i, slot] of slots.entries()) {
  const w = new Uint32Array(slot.buffer, slot.byteOffset, slot.length / 4);
  for (let k = 0; k < w.length; k++) w[k] = Math.imul(k + i * 7919 + 1, 2654435761);
}
const records = Array.from({ length: count }, (_, i) =>
  recordOf(
    Uint32Array.from({ length: 64 }, (_, j) => i * 64 + j),
    [slots[0]!],
  ),
);
const inParallel = async (one: (i: number, slot: Uint8Array) => Promise<void>) => {
  let next = 0;
  await Promise.all(
    slots.map(async (s) => {
      for (let i = next++; i < count; i = next++) await one(i, s);
    }),
  );
};
try {
  const tier = await DiskTier.open({
    drives: [{ directory: join(directory, "t"), capacityBytes: 3 * 2 ** 30 }],
    scrubBytesPerSecond: 0,
  });
  await recoverAll(tier);
  const ids: RecordId[] = [];
  const out: string[] = [];
  const run = async (name: string, work: () => Promise<void>, warm: boolean) => {
    const t = performance.now();
    const c = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(c);
    const s = (performance.now() - t) / 1000;
    if (!warm)
      out.push(
        `${name} ${((count * chunkBytes) / s / 1e6).toFixed(0)} MB/s user ${(user / 1e6).toFixed(3)} sys ${(system / 1e6).toFixed(3)} sum ${((user + system) / 1e6).toFixed(3)}`,
      );
  };
  const write = async () => {
    await inParallel(async (i, slot) => {
      if (ids[i] !== undefined) tier.drop(ids[i]!);
      ids[i] = (await tier.write(records[i]!, [slot], noSignal)) as RecordId;
    });
    await tier.flush();
  };
  const read = () =>
    inParallel(async (i, slot) => {
      if ((await tier.read(ids[i]!, records[i]!.key, [slot], noSignal)) !== "read") throw new Error("gone");
    });
  await run("w", write, true);
  await run("r", read, true);
  for (let p = 0; p < passes; p++) {
    if (mode !== "read") await run("write", write, false);
    if (mode !== "write") await run("read ", read, false);
  }
  console.log(out.join("\n"));
  await tier[Symbol.asyncDispose]();
} finally {
  await pool[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
}
