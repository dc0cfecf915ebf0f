/** Two servers and a store between them: what one has packed the other reads, and its text is the same. */
import { expect, onTestFinished, test } from "vitest";
import { sampleNotes } from "../src/bench/notes/notes.ts";
import { openZstd } from "../src/ffi/zstd.ts";
import { ask } from "./support/client.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { startServer } from "./support/server.ts";
import { programs, startStore } from "./support/valkey.ts";

const flags = ["--deterministic", "--threads", "1", "--memory", "256MiB", "--disk", "0"];

interface Stats {
  readonly tiers: {
    readonly valkey: { readonly records: number; readonly writtenBytes: number; readonly writtenStoredBytes: number };
  };
  readonly savedChunks: number;
  readonly unsavedChunks: number;
  readonly writeBehind: { readonly chunks: number };
}

/** A server that keeps what it reads: the digest of the weights, which names them in the store, may end after the first answer. */
async function start(tier: string) {
  const server = await startServer({ dataDirectory: temporaryDirectory(), flags: [...flags, "--tier", tier] });
  onTestFinished(() => server.killAll());
  const stats = async () => (await (await fetch(`${server.url}/cache/stats`)).json()) as Stats;
  const complete = (prompt: string) =>
    ask(server.url, "/v1/completions", { prompt, temperature: 0, max_tokens: 12, ignore_eos: true });
  let asked = 0;
  const hasSaved = async () => {
    await complete(`Words of ${server.pid}, ${(asked += 1)} times: ${"again and ".repeat(70)}`);
    return (await stats()).savedChunks;
  };
  await expect.poll(hasSaved, { timeout: 60_000, interval: 500 }).toBeGreaterThan(0);
  return { ...server, stats, complete };
}

test.skipIf(programs.length === 0 || openZstd() === undefined)(
  "real KV that one server has packed saves another the reading, token for token",
  async () => {
    await using store = await startStore();
    const address = `valkey://127.0.0.1:${store.port}`;
    const { text } = sampleNotes({ tokens: 1200, seed: 3 });

    const packing = await start(`${address}?compress=lossless`);
    const computed = await packing.complete(text);
    expect(computed.cachedTokens).toBeLessThan(64);
    const left = async () => {
      const { unsavedChunks, writeBehind } = await packing.stats();
      return unsavedChunks + writeBehind.chunks;
    };
    await expect.poll(left, { timeout: 30_000 }).toBe(0);
    const { writtenBytes, writtenStoredBytes } = (await packing.stats()).tiers.valkey;
    expect(writtenStoredBytes / writtenBytes).toBeLessThan(0.9);
    await packing.stop();

    const reading = await start(address);
    const loaded = await reading.complete(text);
    expect(loaded.text).toBe(computed.text);
    expect(loaded.report.reused["valkey"]).toBeGreaterThan(1000);
  },
  180_000,
);
