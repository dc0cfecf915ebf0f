/** Waiting until all that was answered is stored. */
import { expect } from "vitest";
import { stats } from "./client.ts";

/** Resolves when no KV waits to be saved: neither in the engine nor on the way to the disk. */
export async function settled(url: string): Promise<void> {
  await expect.poll(() => stats(url), { timeout: 30_000, interval: 50 }).toMatchObject({ unsavedChunks: 0 });
}
