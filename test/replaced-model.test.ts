/**
 * A model's path comes to mean another model: under a running engine, between two of its launches, and between two servers.
 * Whatever way that happens, KV of the one must never serve the other, and must not be found under its name afterwards.
 */
import { execFileSync, spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  linkSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import type { LlamaEngine } from "../src/engines/llama/server/engine.ts";
import { createLog } from "../src/log.ts";
import { temporaryFolder } from "./support/cache.ts";
import { EngineBench, ask, until } from "./support/engine.ts";
import { writeSplitGguf, writeTinyGguf } from "./support/tiny-gguf.ts";
import { someTokens } from "./support/tokens.ts";

const prompt = someTokens(140, 21);
const [one, two] = [1, 20].map((seed) => ({ family: "llama", seed }) as const) as [Tiny, Tiny];
type Tiny = { readonly family: "llama"; readonly seed: number };

interface Place {
  readonly folder: string;
  /** Where a server is told to look; it means the first model. */
  readonly path: string;
  /** Files of both models, of one size and with the same times. */
  readonly first: string;
  readonly second: string;
}

/** Makes `path` mean the model in `from`. */
type Way = (place: Place, from: string) => void;

/** What an image, an archive or a copying program may leave: the times of the file that was there. */
function inPlace(target: string, from: string): void {
  const { atime, mtime } = statSync(target);
  const file = openSync(target, "r+");
  writeSync(file, readFileSync(from));
  closeSync(file);
  utimesSync(target, atime, mtime);
}

const ways: Record<string, Way> = {
  "renamed over it": ({ path }, from) => {
    copyFileSync(from, `${path}.new`);
    renameSync(`${path}.new`, path);
  },
  "copied over it with times kept": ({ path }, from) => execFileSync("cp", ["-p", from, path]),
  "written in place with the old times put back": ({ path }, from) => inPlace(path, from),
  "removed and copied, maybe to the same inode": ({ path }, from) => {
    rmSync(path);
    execFileSync("cp", ["-p", from, path]);
  },
  "a hard link in its place": ({ path }, from) => {
    rmSync(path);
    linkSync(from, path);
  },
  "a symbolic link in its place": ({ path }, from) => {
    rmSync(path);
    symlinkSync(from, path);
  },
  "a link that points elsewhere": ({ path, folder }, from) => {
    const link = join(folder, "link");
    symlinkSync(from, link);
    renameSync(link, path);
  },
  "another folder under the folder's name": ({ path, folder }, from) => {
    const fresh = join(folder, "fresh");
    cpSync(join(path, ".."), fresh, { recursive: true });
    copyFileSync(from, join(fresh, "model.gguf"));
    renameSync(join(path, ".."), join(folder, `old-${from === join(folder, "first.gguf") ? 2 : 1}`));
    renameSync(fresh, join(path, ".."));
  },
  "another file mounted over it": ({ path, first }, from) => {
    if (from === first) unmount(path);
    else execFileSync("mount", ["--bind", from, path]);
  },
};
const canMount = process.platform === "linux" && mountWorks();

/** Tokens that each model answers with when nothing is cached. */
let cold: { readonly first: readonly number[]; readonly second: readonly number[] };

beforeAll(async () => {
  const answer = async (model: Tiny) => {
    await using bench = new EngineBench(model);
    const engine = bench.start();
    await engine.ready;
    return (await ask(engine, prompt)).tokens;
  };
  cold = { first: await answer(one), second: await answer(two) };
  expect(cold.first).not.toEqual(cold.second);
});

function placeIn(folder: string): Place {
  const [first, second] = ["first.gguf", "second.gguf"].map((name) => join(folder, name)) as [string, string];
  writeTinyGguf(first, one);
  writeTinyGguf(second, two);
  for (const file of [first, second]) utimesSync(file, 1000, 1000);
  const path = join(folder, "models", "model.gguf");
  mkdirSync(join(folder, "models"));
  execFileSync("cp", ["-p", first, path]);
  return { folder, path, first, second };
}

/** Asks, and waits until what was computed is in the cache. */
async function askAndSave(engine: LlamaEngine) {
  const before = engine.stats().savedChunks;
  const answer = await ask(engine, prompt);
  if (answer.report.computedTokens > 64) await until(() => engine.stats().savedChunks > before);
  await until(() => engine.stats().unsavedChunks === 0);
  return answer;
}

async function killed(engine: LlamaEngine): Promise<void> {
  const { restarts } = engine.stats();
  process.kill(engine.pid!, "SIGKILL");
  await until(() => engine.stats().restarts > restarts && engine.stats().state === "ready");
}

for (const [name, way] of Object.entries(ways)) {
  const run = name.includes("mounted") ? test.runIf(canMount) : test;
  run(`${name}: an engine that starts again serves the other model with none of the first one's KV`, async () => {
    await using bench = new EngineBench(one);
    const { cache, socketPath } = await bench.openCache();
    const place = placeIn(bench.path);
    const engine = bench.start({ socketPath }, { modelPath: place.path });
    try {
      await engine.ready;
      await until(() => cache.stats().sessions === 1);
      expect((await askAndSave(engine)).tokens).toEqual(cold.first);

      way(place, place.second);
      await killed(engine);
      const other = await askAndSave(engine);
      expect(other.report.reused).toEqual({});
      expect(other.tokens).toEqual(cold.second);

      way(place, place.first);
      await killed(engine);
      const back = await ask(engine, prompt);
      expect(back.tokens).toEqual(cold.first);
      expect(back.report.reused.memory, "its own KV is found again").toBeGreaterThan(64);
    } finally {
      if (name.includes("mounted")) unmount(place.path);
    }
  });
}

test("the second part of a split model replaced: none of the old model's KV", async () => {
  await using bench = new EngineBench(one);
  const { cache, socketPath } = await bench.openCache();
  const [path, second] = writeSplitGguf(bench.path, one);
  const elsewhere = join(bench.path, "elsewhere");
  mkdirSync(elsewhere);
  const [, other] = writeSplitGguf(elsewhere, two);
  const engine = bench.start({ socketPath }, { modelPath: path });
  await engine.ready;
  await until(() => cache.stats().sessions === 1);
  const { tokens } = await askAndSave(engine);
  renameSync(other, second);
  await killed(engine);
  const answer = await askAndSave(engine);
  expect(answer.report.reused).toEqual({});
  expect(answer.tokens).not.toEqual(tokens);
});

test("a server that starts again with the remembered digest takes no other model for the one it knows", async () => {
  await using bench = new EngineBench(one);
  const { socketPath } = await bench.openCache();
  const place = placeIn(bench.path);
  const start = async () => {
    const engine = bench.start({ socketPath }, { modelPath: place.path });
    await engine.ready;
    return engine;
  };
  const first = await start();
  await until(() => first.stats().state === "ready");
  await askAndSave(first);
  await first[Symbol.asyncDispose]();
  inPlace(place.path, place.second);
  const second = await start();
  const answer = await ask(second, prompt);
  expect(answer.report.reused).toEqual({});
  expect(answer.tokens).toEqual(cold.second);
});

test("written in place while it is served: from then on nothing is reused and nothing stored, and one line says so", async () => {
  await using bench = new EngineBench(one);
  const { cache, socketPath } = await bench.openCache();
  const place = placeIn(bench.path);
  const lines: string[] = [];
  const log = createLog({ level: "info", write: (line) => lines.push(line) });
  const engine = bench.start({ socketPath }, { modelPath: place.path, log });
  await engine.ready;
  await until(() => cache.stats().sessions === 1);
  await askAndSave(engine);
  expect((await ask(engine, prompt)).report.reused).not.toEqual({});
  const saved = engine.stats().savedChunks;

  inPlace(place.path, place.second);
  for (let round = 0; round < 3; round += 1) {
    const { report } = await ask(engine, prompt);
    expect(report.reused.memory, `round ${round}`).toBeUndefined();
    if (round === 0) expect(report.reused).toEqual({});
  }
  await until(() => lines.some((line) => line.includes("overwritten")));
  expect((await ask(engine, someTokens(140, 22))).report.computedTokens).toBe(140);
  await until(() => engine.stats().unsavedChunks === 0);
  expect(engine.stats().savedChunks).toBe(saved);
  expect(lines.filter((line) => line.includes("overwritten"))).toHaveLength(1);

  await killed(engine);
  const answer = await ask(engine, prompt);
  expect(answer.tokens).toEqual(cold.second);
  expect(answer.report.reused).toEqual({});
});

test("touched, linked or moved while it is served: the cache is used again as soon as its content is known", async () => {
  await using bench = new EngineBench(one);
  const { cache, socketPath } = await bench.openCache();
  const place = placeIn(bench.path);
  const engine = bench.start({ socketPath, sequences: 1 }, { modelPath: place.path });
  await engine.ready;
  await until(() => cache.stats().sessions === 1);
  await askAndSave(engine);
  linkSync(place.path, join(bench.path, "backup"));
  expect((await ask(engine, prompt)).report.reused).toEqual({});
  const other = someTokens(140, 23);
  await until(async () => {
    await ask(engine, other); // takes the one sequence: what comes back comes from the cache
    return (await ask(engine, prompt)).report.reused.memory !== undefined;
  });
  expect((await ask(engine, prompt)).tokens).toEqual(cold.first);
});

/** At once, also while a process has it open; what is not mounted stays as it is. */
function unmount(path: string): void {
  spawnSync("umount", ["--lazy", path]);
}

function mountWorks(): boolean {
  using folder = temporaryFolder();
  const mounted = spawnSync("mount", ["--bind", folder.path, folder.path]).status === 0; // not in every container
  if (mounted) unmount(folder.path);
  return mounted;
}
