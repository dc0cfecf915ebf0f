/** Records for a disk tier, and drives that fail. */
import { noSignal, recordOf } from "../../src/tiers/tier-suite.ts";
import type { DiskTier } from "../../src/tiers/disk/disk-tier.ts";
import { nodeFiles, type DiskFile, type DiskFiles } from "../../src/tiers/disk/files.ts";

/** Payloads that name their record, so that a wrong one is seen. */
export function payloadFor(i: number, bytes = 9000): Buffer {
  const payload = Buffer.alloc(bytes);
  for (let at = 0; at + 4 <= bytes; at += 4) payload.writeUInt32LE((Math.imul(i + 1, 2654435761) ^ at) >>> 0, at);
  return payload;
}

export async function fill(tier: DiskTier, count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) {
    const payload = payloadFor(i);
    await tier.write(recordOf(Uint32Array.from([i, 7]), [payload]), [payload], noSignal);
  }
}

/** Real files, each as `wrap` gives it back. */
export function filesThrough(wrap: (file: DiskFile) => DiskFile): DiskFiles {
  return {
    ...nodeFiles,
    create: async (path) => wrap(await nodeFiles.create(path)),
    open: async (path) => wrap(await nodeFiles.open(path)),
  };
}

/** Files whose writes fail while `fault` has a code; some bytes may have arrived before they did. */
export function failing(state: { fault: string | undefined }): DiskFiles {
  const wrap = (file: DiskFile): DiskFile => ({
    ...file,
    write: async (pieces, position, headers) => {
      if (state.fault === undefined) return file.write(pieces, position, headers);
      await file.write([pieces[0]!.subarray(0, 4096)], position, []);
      throw Object.assign(new Error(state.fault), { code: state.fault });
    },
    read: async (into, position) => {
      if (state.fault === "EIO") throw Object.assign(new Error("EIO"), { code: "EIO" });
      return file.read(into, position);
    },
  });
  return filesThrough(wrap);
}
