/** A disk that lies, a disk that is full, a folder that belongs to somebody else. */
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { sampleNotes } from "../src/bench/notes/notes.ts";
import { ask, stats } from "./support/client.ts";
import { filesBelow, forgetMemory, temporaryDirectory } from "./support/data-directory.ts";
import { inParallel, questionPrompt, seededRandom, tokenize } from "./support/prompts.ts";
import { isFull, rounds, seedOr, timeoutMs } from "./support/depth.ts";
import { launchServer, type RunningServer, startServer } from "./support/server.ts";
import { settled } from "./support/settled.ts";

const flags = ["--deterministic", "--threads", "1", "--memory", "64MiB", "--disk", "256MiB"];
const damages = rounds({ small: 3, full: 20 });

test(
  `${10 * damages} flipped bits on disk: no wrong answer, no crash, and a counter tells`,
  async () => {
    const dataDirectory = temporaryDirectory();
    let server = await startServer({ dataDirectory, flags });
    onTestFinished(() => server.killAll());
    const source = await tokenize(server.url, sampleNotes({ seed: 3, characters: 40_000 }).text);
    const prompts = Array.from({ length: isFull ? 12 : 8 }, (_, index) => source.slice(index * 500, index * 500 + 450));
    const expected = await answers(server, prompts, { read: false, save: false });
    const random = seededRandom(seedOr(200));
    let corrupt = 0;
    for (let round = 0; round < damages; round += 1) {
      expect(await answers(server, prompts, {})).toEqual(expected);
      await settled(server.url);
      await server.killAll();
      forgetMemory(dataDirectory);
      const regions = filesBelow(dataDirectory).filter((file) => statSync(file).size >= 4096);
      for (let flip = 0; flip < 10; flip += 1)
        flipBit(regions[Math.floor(random() * regions.length)] as string, random); // there is one
      server = await startServer({ dataDirectory, flags });
      expect(await answers(server, prompts, {}), `round ${round}`).toEqual(expected);
      // In a region that was open a damaged record cannot be told from one whose writing had not ended.
      const { corruptRecords, tornRecords } = await diskStats(server.url);
      corrupt += corruptRecords + tornRecords;
    }
    expect(corrupt).toBeGreaterThan(damages);
  },
  timeoutMs(300_000),
);

test.runIf(process.getuid?.() === 0)(
  "a full disk costs nothing but the saving",
  async () => {
    const directory = temporaryDirectory();
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", directory]);
    onTestFinished(() => void execFileSync("umount", ["-l", directory]));
    const server = await startServer({ dataDirectory: directory, flags: ["--memory", "64MiB", "--disk", "1GiB"] });
    onTestFinished(() => server.killAll());
    // One fills it.
    const prompts = rounds({ small: 2, full: 6 });
    for (let seed = 0; seed < prompts; seed += 1) {
      const { prompt, answer } = await questionPrompt(server.url, { seed, tokens: 600 });
      const request = { prompt, temperature: 0, max_tokens: 24 };
      expect((await ask(server.url, "/v1/completions", request)).text).toBe(answer);
      expect(await ask(server.url, "/v1/completions", request)).toMatchObject({ text: answer, cachedTokens: 599 });
    }
    await settled(server.url);
    expect(await stats(server.url)).toMatchObject({ tiers: { disk: { capacityBytes: 1024 ** 3 } } });
  },
  60_000,
);

test("two servers on one data directory: the second says so, exits 3, harms nothing", async () => {
  const dataDirectory = temporaryDirectory();
  const first = await startServer({ dataDirectory, flags });
  onTestFinished(() => first.killAll());
  const prompt = "The harbour office in Lisbon keeps its ledgers";
  const { text } = await ask(first.url, "/v1/completions", { prompt, temperature: 0, max_tokens: 4 });

  const second = launchServer({ dataDirectory, flags });
  expect(await second.ended).toEqual({ code: 3, signal: null });
  expect(second.output()).toContain(dataDirectory);
  expect(second.output()).toContain(String(first.pid));

  const again = await ask(first.url, "/v1/completions", { prompt, temperature: 0, max_tokens: 4 });
  expect(again.text).toBe(text);
  expect(filesBelow(dataDirectory).some((file) => file.startsWith(join(dataDirectory, "disk")))).toBe(true);
}, 60_000);

async function diskStats(url: string): Promise<{ corruptRecords: number; tornRecords: number }> {
  const { tiers } = (await stats(url)) as { tiers: { disk: { corruptRecords: number; tornRecords: number } } };
  return tiers.disk;
}

async function answers(server: RunningServer, prompts: readonly number[][], reprise: object): Promise<string[]> {
  return inParallel(prompts, 4, async (prompt) => {
    const body = { prompt, temperature: 0, max_tokens: 6, ignore_eos: true, reprise };
    return (await ask(server.url, "/v1/completions", body)).text;
  });
}

function flipBit(file: string, random: () => number): void {
  const descriptor = openSync(file, "r+");
  const byte = Buffer.alloc(1);
  let position = 0;
  // Not in room that is only reserved: it holds zeros.
  for (let tries = 0; tries < 1000 && byte[0] === 0; tries += 1) {
    position = Math.floor(random() * statSync(file).size);
    readSync(descriptor, byte, 0, 1, position);
  }
  byte[0] = (byte[0] ?? 0) ^ (1 << Math.floor(random() * 8));
  writeSync(descriptor, byte, 0, 1, position);
  closeSync(descriptor);
}
