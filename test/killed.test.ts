/** Never in the way, never wrong, never forgotten: processes die at random moments under load. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { sampleNotes } from "../src/bench/notes/notes.ts";
import { ask } from "./support/client.ts";
import { bytesBelow, orphanedPools, poolOwners, temporaryDirectory } from "./support/data-directory.ts";
import { rounds, seedOr, timeoutMs } from "./support/depth.ts";
import { seededRandom, tokenize } from "./support/prompts.ts";
import { childrenOf, type RunningServer, startServer } from "./support/server.ts";

const kills = rounds({ small: 6, full: 50 });
const diskBytes = 64 * 1024 ** 2;
// A pool smaller than what is asked about, so that eviction and disk reads are under way when the kill comes.
const flags = ["--deterministic", "--threads", "1", "--memory", "64MiB", "--disk", String(diskBytes)];

test(
  `after each of ${kills} kills under load every answer is right, nothing hangs, no file outgrows its limit`,
  async () => {
    const dataDirectory = temporaryDirectory();
    let server = await startServer({ dataDirectory, flags });
    onTestFinished(() => server.killAll());
    const prompts = await somePrompts(server.url);
    const expected = new Map<number, string>();
    for (const [index, prompt] of prompts.entries()) {
      expected.set(index, (await complete(server, prompt, { read: false, save: false })).text);
    }

    const random = seededRandom(seedOr(50));
    const load = new Load(prompts, expected);
    for (let kill = 0; kill < kills; kill += 1) {
      load.start(server);
      await sleep(50 + random() * 900);
      const victim = (["engine", "server", "both"] as const)[kill % 3];
      await killProcess(server, victim ?? "both");
      await load.stop();
      if (victim !== "engine") server = await startServer({ dataDirectory, flags });
      // The next answer comes, and is right, also while the engine is being started again.
      const index = Math.floor(random() * prompts.length);
      const answer = await untilAnswered(() => complete(server, prompts[index] as number[], {})); // index < length
      expect(answer.text, `after kill ${kill} (${victim})`).toBe(expected.get(index));
      expect(bytesBelow(dataDirectory)).toBeLessThanOrEqual(diskBytes + 1024 ** 2);
      expect(orphanedPools(dataDirectory)).toEqual([]);
    }

    // On a busy machine few answers end before the next kill: the load goes on until there are some to look at.
    load.start(server);
    await expect.poll(() => load.right, { timeout: 60_000 }).toBeGreaterThan(kills);
    await load.stop();
    expect(load.wrong).toEqual([]);
    expect(await server.stop()).toBe(0);
    expect(poolOwners()).not.toContain(server.pid);
  },
  timeoutMs(600_000),
);

/** Four clients that ask at random until stopped; failures are expected here, wrong answers are not. */
class Load {
  readonly #prompts: readonly number[][];
  readonly #expected: ReadonlyMap<number, string>;
  #stopping = new AbortController();
  #clients: Promise<void>[] = [];
  #next = 0;
  right = 0;
  readonly wrong: string[] = [];

  constructor(prompts: readonly number[][], expected: ReadonlyMap<number, string>) {
    this.#prompts = prompts;
    this.#expected = expected;
  }

  start(server: RunningServer): void {
    this.#stopping = new AbortController();
    this.#clients = Array.from({ length: 4 }, () => this.#run(server, this.#stopping.signal));
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#clients);
  }

  async #run(server: RunningServer, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const index = (this.#next += 7) % this.#prompts.length;
      try {
        const { text } = await complete(server, this.#prompts[index] as number[], {}, signal); // index < length
        if (text === this.#expected.get(index)) this.right += 1;
        else this.wrong.push(`prompt ${index}: ${JSON.stringify(text)}`);
      } catch {
        await sleep(10); // killed under our feet
      }
    }
  }
}

function complete(server: RunningServer, prompt: readonly number[], reprise: object, signal?: AbortSignal) {
  return ask(
    server.url,
    "/v1/completions",
    { prompt, temperature: 0, max_tokens: 6, ignore_eos: true, reprise },
    signal,
  );
}

async function somePrompts(url: string): Promise<number[][]> {
  const source = await tokenize(url, sampleNotes({ seed: 900, characters: 60_000 }).text);
  return Array.from({ length: 24 }, (_, index) => source.slice(index * 300, index * 300 + 100 + index * 12));
}

async function killProcess(server: RunningServer, victim: "engine" | "server" | "both"): Promise<void> {
  if (victim === "both") return server.killAll();
  if (victim === "engine") {
    process.kill(childrenOf(server.pid).engine, "SIGKILL");
    return;
  }
  server.signal("SIGKILL");
  await server.ended;
}

/** Asks again while the engine is down, for ten seconds. */
async function untilAnswered<T>(attempt: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await sleep(50);
    }
  }
}
