import { copyFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { textContent } from "../../../chat/content.ts";
import { until } from "../../../../test/support/engine.ts";
import { temporaryFolder } from "../../../../test/support/cache.ts";
import { loadModel } from "../../../../test/support/scheduler-rig.ts";
import { shippedModelPath } from "../../../../test/support/repository.ts";
import { writeTinyGguf } from "../../../../test/support/tiny-gguf.ts";
import { type Log, silentLog } from "../../../log.ts";
import { ModelFiles } from "../model/model-files.ts";
import { Tokenizer } from "./tokenizer.ts";
import type { TextTask } from "../tokenizer-messages.ts";

const standIn = fileURLToPath(new URL("../../../../test/support/tokenizer-stand-in.mjs", import.meta.url));
const signal = new AbortController().signal;

interface Rig extends AsyncDisposable {
  readonly tokenizer: Tokenizer;
  readonly path: string;
  /** Tokens of a text, for a tenant. */
  readonly ask: (text: string, tenant?: string, signal?: AbortSignal) => Promise<Uint32Array>;
  /** What `work` takes, in milliseconds. */
  readonly timed: (work: () => Promise<unknown>) => Promise<number>;
}

interface RigOptions {
  readonly modelPath?: string;
  readonly maxWaiting?: number;
  readonly program?: string;
  readonly chatTemplate?: string;
  readonly log?: Log;
}

/** A rig of the test's own. */
async function setUp(options: RigOptions = {}): Promise<Rig> {
  const rig = await openRig(options);
  onTestFinished(() => rig[Symbol.asyncDispose]());
  return rig;
}

let commonRig: Promise<Rig> | undefined;
afterAll(async () => (await commonRig)?.[Symbol.asyncDispose]());

/** The rig of all tests that need nothing special, with all processes idle: three of them take seconds to start. */
async function common(): Promise<Rig> {
  commonRig ??= openRig();
  const rig = await commonRig;
  await until(() => rig.tokenizer.idleProcesses === 3);
  return rig;
}

async function openRig(options: RigOptions = {}): Promise<Rig> {
  const folder = temporaryFolder();
  const path = join(folder.path, "model.gguf");
  if (options.modelPath === undefined) writeTinyGguf(path, { family: "llama" });
  else copyFileSync(options.modelPath, path);
  const { maxWaiting = 50, program = standIn, chatTemplate, log = silentLog } = options;
  const tokenizer = new Tokenizer({ gpu: "off", maxWaiting, spareAfterMs: 0, program, chatTemplate, log });
  const files = await ModelFiles.open(path, signal);
  tokenizer.use(files);
  await files[Symbol.asyncDispose](); // the tokenizer has its share
  await tokenizer.ready;
  await until(() => tokenizer.idleProcesses === 3);
  return {
    tokenizer,
    path,
    ask: async (text, tenant = "", leave = signal) =>
      (await tokenizer.run(tokenizeTask(text), { tenant, signal: leave })) as Uint32Array,
    async timed(work) {
      const started = performance.now();
      await work();
      return performance.now() - started;
    },
    async [Symbol.asyncDispose]() {
      await tokenizer[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  };
}

function tokenizeTask(text: string): TextTask {
  return { kind: "tokenize", text, special: true, begin: false };
}

test("texts, chats and tokens become what the same vocabulary makes of them in one process", async () => {
  const { tokenizer, ask } = await setUp({ modelPath: shippedModelPath, program: "tokenizer/tokenizer-process.js" });
  const { vocabulary } = loadModel(shippedModelPath);
  const texts = ["", "the naïve 日本語 👍 answer<|end|>", "x".repeat(100_000), "\ud800 half", "<|user|>\nHi<|end|>\n"];
  for (const text of texts) {
    const tokens = await ask(text);
    expect(tokens).toEqual(vocabulary.tokenize(text, { special: true, begin: false }));
    const back = await tokenizer.run({ kind: "detokenize", tokens }, { tenant: "", signal });
    expect(back).toBe(vocabulary.detokenize(tokens));
    const task = { kind: "prompt", prompt: text, mostBytes: 1e6 } as const;
    expect(await tokenizer.run(task, { tenant: "", signal })).toEqual(vocabulary.tokenizePrompt({ text, typed: [] }));
  }
  const chat = { messages: [{ role: "user", content: textContent("the rain") }] };
  const rendered = "<|user|>\nthe rain<|end|>\n<|assistant|>\n";
  const ofChat = await tokenizer.run({ kind: "prompt", prompt: chat, mostBytes: 1e6 }, { tenant: "", signal });
  expect(ofChat).toEqual(vocabulary.tokenizePrompt({ text: rendered, typed: [] }));
  await expect(
    tokenizer.run({ kind: "prompt", prompt: chat, mostBytes: 20 }, { tenant: "", signal }),
  ).rejects.toMatchObject({ code: "PROMPT_TOO_LONG", field: "messages" });
  expect((await tokenizer.ready).longestPieceBytes).toBe(16);
});

test("a template that cannot be parsed is told once, and costs chats alone", async () => {
  const warn = vi.fn<Log["warn"]>();
  const options = { modelPath: shippedModelPath, program: "tokenizer/tokenizer-process.js", chatTemplate: "{% for %}" };
  const { tokenizer, ask } = await setUp({ ...options, log: { ...silentLog, warn } });
  expect((await ask("the rain")).length).toBeGreaterThan(0);
  const chat = { messages: [{ role: "user", content: textContent("the rain") }] };
  await expect(
    tokenizer.run({ kind: "prompt", prompt: chat, mostBytes: 1e6 }, { tenant: "", signal }),
  ).rejects.toMatchObject({ code: "BAD_REQUEST", field: "messages" });
  expect(warn.mock.calls).toEqual([[expect.stringContaining("chats are refused, unless")]]);
});

test("a text that ends its process is refused for good; the texts that wait behind it are not", async () => {
  const { ask, tokenizer } = await common();
  const fatal = ask("this ends its process");
  const others = ["one", "two", "three"].map((text) => ask(text));
  await expect(fatal).rejects.toMatchObject({ code: "TEXT_NOT_TOKENIZABLE" });
  expect((await Promise.all(others)).map(({ length }) => length > 0)).toEqual([true, true, true]);

  await until(() => tokenizer.idleProcesses === 3);
  const pids = [...tokenizer.pids];
  await expect(ask("this ends its process", "another tenant")).rejects.toMatchObject({ code: "TEXT_NOT_TOKENIZABLE" });
  expect(tokenizer.pids, "the same text ends no second process").toEqual(pids);
});

test("texts of one tenant that end their processes, one after the other, delay no other tenant's", async () => {
  const { ask, timed } = await common();
  const measure = async () => {
    const times: number[] = [];
    for (let round = 0; round < 40; round += 1) {
      times.push(await timed(() => ask(`text ${round}`, "honest")));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return times.sort((a, b) => a - b)[30]!; // three of four took no longer
  };
  const alone = await measure();
  const stop = new AbortController();
  let deaths = 0;
  const hostile = (async () => {
    for (let round = 0; !stop.signal.aborted; round += 1) {
      await ask(`number ${round} ends its process`, "hostile").catch(() => (deaths += 1));
    }
  })();
  await until(() => deaths > 0);
  const beside = await measure();
  stop.abort();
  await hostile;
  expect(deaths).toBeGreaterThan(1);
  expect(beside, `alone it took ${alone} ms`).toBeLessThan(alone + 60);
}, 60_000);

/** Beside one another, as they wait for limits of seconds; each has processes of its own. */
describe.concurrent("a process that does not end its text", () => {
  test("a text that takes too long is refused for good, and others go on meanwhile", async () => {
    await using rig = await openRig();
    const { ask, timed } = rig;
    const started = performance.now();
    const endless = ask("this never ends", "endless").catch((error: unknown) => error);
    const another = ask("neither does this: it never ends", "endless").catch((error: unknown) => error);
    expect(await timed(() => ask("short", "honest"))).toBeLessThan(1000);
    expect(await endless).toMatchObject({ code: "TEXT_NOT_TOKENIZABLE" });
    expect(performance.now() - started).toBeGreaterThan(1900);
    expect(await another).toMatchObject({ code: "TEXT_NOT_TOKENIZABLE" });
    expect((await ask("short", "endless")).length).toBeGreaterThan(0);
  });

  test.runIf(process.platform === "linux")(
    "a text whose process is stopped under it, for longer than it may take, is not to blame",
    async () => {
      await using rig = await openRig();
      const { ask, tokenizer } = rig;
      const asked = ask("this takes 700 ms");
      await new Promise((resolve) => setTimeout(resolve, 200));
      for (const pid of tokenizer.pids) process.kill(pid, "SIGSTOP");
      await new Promise((resolve) => setTimeout(resolve, 3000));
      for (const pid of tokenizer.pids) process.kill(pid, "SIGCONT");
      expect((await asked).length).toBeGreaterThan(0);
      expect((await ask("this takes 700 ms")).length).toBeGreaterThan(0);
    },
  );

  test.runIf(process.platform === "linux")(
    "the text of a process that was stopped is read by another",
    async () => {
      await using rig = await openRig();
      const { ask, tokenizer } = rig;
      for (const pid of tokenizer.pids) process.kill(pid, "SIGSTOP");
      expect((await ask("the rain")).length).toBeGreaterThan(0);
    },
    60_000,
  );
});

test("a short text waits for no long one, not even for one of its own tenant", async () => {
  const { ask, timed } = await common();
  const long = Promise.all([1, 2, 3].map((part) => ask(`${part} takes 700 ms ${"x".repeat(70_000)}`)));
  expect(await timed(() => ask("short"))).toBeLessThan(600);
  expect(await timed(() => long)).toBeGreaterThan(1000);
});

test("of long texts each tenant's is next in turn", async () => {
  const { ask } = await common();
  const done: string[] = [];
  const long = (name: string, tenant: string) =>
    ask(`${name} takes 100 ms ${"x".repeat(70_000)}`, tenant).then(() => done.push(name));
  const ofA = ["a1", "a2", "a3", "a4"].map((name) => long(name, "a"));
  await Promise.all([...ofA, long("b1", "b")]);
  expect(done).toEqual(["a1", "b1", "a2", "a3", "a4"]);
});

test("who leaves is forgotten in the queue, and a long text that nobody waits for ends", async () => {
  const { ask, tokenizer, timed } = await common();
  const leave = new AbortController();
  const long = (name: string, leaving?: AbortSignal) =>
    ask(`${name} takes 1500 ms ${"x".repeat(300_000)}`, "", leaving);
  const first = long("first", leave.signal);
  const second = long("second", leave.signal);
  const pids = new Set(tokenizer.pids);
  await new Promise((resolve) => setTimeout(resolve, 50));
  leave.abort();
  await expect(first).rejects.toMatchObject({ code: "CANCELLED" });
  await expect(second).rejects.toMatchObject({ code: "CANCELLED" });
  expect(await timed(() => ask(`third ${"x".repeat(300_000)}`))).toBeLessThan(1400);
  await until(() => tokenizer.pids.some((pid) => !pids.has(pid)));
});

test("the queue has an end, and one tenant cannot keep another out of it", async () => {
  const { ask } = await setUp({ maxWaiting: 4 });
  const slow = (name: string, tenant: string) =>
    ask(`${name} takes 300 ms`, tenant).then(
      () => "done",
      (error: { code: string }) => error.code,
    );
  const many = Array.from({ length: 6 }, (_, index) => slow(`a${index}`, "a"));
  const another = slow("b", "b");
  // One runs and four wait; the sixth is refused, and the newest makes room for the other tenant once it has to wait.
  expect(await many[5]).toBe("QUEUE_FULL");
  expect(await another).toBe("done");
  expect(await Promise.all(many.slice(0, 5))).toEqual(["done", "done", "done", "done", "QUEUE_FULL"]);
});

test("another model under the path is another vocabulary, from the next text on", async () => {
  const { ask, tokenizer, path } = await setUp();
  const before = await ask("the rain in Spain");
  copyFileSync(shippedModelPath, `${path}.new`);
  renameSync(`${path}.new`, path);
  expect(await ask("the rain in Spain"), "until it is used").toEqual(before);
  await using files = await ModelFiles.open(path, signal);
  tokenizer.use(files);
  await tokenizer.ready;
  const { vocabulary } = loadModel(shippedModelPath);
  expect(await ask("the rain in Spain")).toEqual(
    vocabulary.tokenize("the rain in Spain", { special: true, begin: false }),
  );
});

test("a process that no text waits for is started in a pause of the engine, and at once when one waits", async () => {
  let busy = true;
  using folder = temporaryFolder();
  const path = join(folder.path, "model.gguf");
  writeTinyGguf(path, { family: "llama" });
  const tokenizer = new Tokenizer({
    gpu: "off",
    maxWaiting: 50,
    spareAfterMs: 0,
    program: standIn,
    log: silentLog,
    isBusy: () => busy,
  });
  await using _closed = tokenizer;
  const files = await ModelFiles.open(path, signal);
  tokenizer.use(files);
  await files[Symbol.asyncDispose]();
  await tokenizer.ready;
  await new Promise((resolve) => setTimeout(resolve, 1200)); // two looks
  expect(tokenizer.pids).toHaveLength(1);
  busy = false;
  await until(() => tokenizer.idleProcesses === 3);
});
