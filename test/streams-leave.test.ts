/**
 * Two hundred clients at once that connect, stream and vanish, each at a moment of its own: nothing of theirs is left, the engine
 * stops within a step, and whoever asks next is answered at once.
 */
import { once } from "node:events";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { treeCost } from "../src/bench/process-tree.ts";
import { ask, metric, stats } from "./support/client.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { seedOr, rounds, timeoutMs } from "./support/depth.ts";
import { openFiles, ownMemory } from "./support/process-use.ts";
import { seededRandom } from "./support/prompts.ts";
import { send } from "./support/raw-client.ts";
import { childrenOf, startServer } from "./support/server.ts";

const clients = 200;
const waves = rounds({ small: 3, full: 10 });
const path = "/v1/completions";
const question = {
  prompt: "Note 1. The Oslo bakery keeps its spare keys in drawer 12.",
  max_tokens: 8,
  temperature: 0,
};

test.skipIf(process.platform !== "linux")(
  "clients that stream and vanish leave nothing, and nothing goes on for them",
  async () => {
    const random = seededRandom(seedOr(11));
    const flags = "--memory 256MiB --disk 0 --context 4096 --sequences 4 --queue 250".split(" ");
    const server = await startServer({ dataDirectory: temporaryDirectory(), flags });
    onTestFinished(() => server.killAll());
    const { engine } = childrenOf(server.pid);
    const pids = [server.pid, engine];
    const port = Number(new URL(server.url).port);
    const { text } = await ask(server.url, path, question);
    const before = { files: openFiles(pids), bytes: 0 }; // the first wave makes the server's own memory grow

    for (let wave = 0; wave < waves; wave += 1) {
      const leaving = Array.from({ length: clients }, async (_, i) => {
        const prompt = Array.from({ length: 12 }, () => `word${Math.floor(random() * 1000)}`).join(" ");
        const body = { prompt, max_tokens: 3000, temperature: 0, ignore_eos: true, stream: true };
        const socket = await send(port, body, { path });
        // A fifth does not wait for its turn: in the queue, in its prompt, or between two tokens.
        return i % 5 === 4 ? leavesAfterMs(socket, 3000 * random()) : leavesAfterEvents(socket, 1 + 30 * random());
      });
      const streamed = (await Promise.all(leaving)).filter((events) => events > 0).length;
      expect(streamed).toBeGreaterThan(0.8 * clients - 1);

      const computed = await untilQuiet(engine);
      // Four answers of 3,000 tokens would take many seconds; what was under way, and saving it, does not.
      expect(computed).toBeLessThan(0.2);
      expect(await metric(server.url, "reprise_requests_running")).toBe(0);
      expect(await metric(server.url, "reprise_requests_waiting")).toBe(0);
      expect(await metric(server.url, "reprise_cache_leases")).toBe(0);
      expect(await metric(server.url, "reprise_streams_cut_total")).toBeGreaterThanOrEqual((wave + 1) * 0.8 * clients);
      expect(await stats(server.url)).toMatchObject({ engine: { state: "ready", restarts: 0 } });
      await expect.poll(() => openFiles(pids), { timeout: 10_000 }).toBeLessThan(before.files + 10);
      if (wave === 0) before.bytes = ownMemory(pids);

      const asked = performance.now();
      expect((await ask(server.url, path, question)).text).toBe(text);
      expect(performance.now() - asked).toBeLessThan(2000);
    }
    expect(ownMemory(pids) - before.bytes).toBeLessThan(64 * 2 ** 20);
  },
  timeoutMs(300_000),
);

/** Counts the events of the stream until the client has left. */
async function leavesAfterEvents(socket: Socket, events: number): Promise<number> {
  let seen = 0;
  socket.setEncoding("latin1").on("data", (data: string) => {
    seen += data.split("data: ").length - 1;
    if (seen >= events) socket.destroy();
  });
  await once(socket, "close");
  return seen;
}

async function leavesAfterMs(socket: Socket, milliseconds: number): Promise<number> {
  socket.resume();
  await sleep(milliseconds);
  socket.destroy();
  return 0;
}

/** Waits until a process computes nothing any more. @returns the processor seconds that it took until then */
async function untilQuiet(pid: number): Promise<number> {
  const spent = () => treeCost(pid).cpuSeconds;
  const began = spent();
  const quiet = async () => {
    const then = spent();
    await sleep(300);
    return spent() - then;
  };
  await expect.poll(quiet, { timeout: 30_000, interval: 1 }).toBeLessThan(0.03);
  return spent() - began;
}
