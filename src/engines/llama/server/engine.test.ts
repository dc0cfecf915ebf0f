import { spawn } from "node:child_process";
import { once } from "node:events";
import { truncateSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { textContent } from "../../../chat/content.ts";
import { EngineBench, ask, request, slowModel, until } from "../../../../test/support/engine.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import { greedy } from "../../../engine.ts";
import { codeOf } from "../../../errors.ts";
import type { LlamaEngine } from "./engine.ts";

test("a chat is rendered, answered and counted", async () => {
  await using bench = new EngineBench();
  const shares: number[] = [];
  const engine = bench.start({}, { onProgress: (share) => shares.push(share) });
  await expect(ask(engine, "x")).rejects.toMatchObject({
    code: "ENGINE_LOADING",
  });
  const info = await engine.ready;
  expect(info).toMatchObject({
    name: "tiny",
    architecture: "llama",
    contextTokens: 1024,
    vocabularySize: 512,
    reuse: true,
  });
  expect(shares.at(-1)).toBe(1);

  const chat = { messages: [{ role: "user", content: textContent("the rain") }] };
  const answer = await ask(engine, chat);
  const rendered = await engine.tokenize("<|user|>\nthe rain<|end|>\n<|assistant|>\n", { special: true, begin: true });
  expect(await engine.promptTokens(chat)).toEqual(rendered);
  expect(answer.report).toMatchObject({ promptTokens: rendered.length, computedTokens: rendered.length });
  expect(answer.end).toEqual({ kind: "end", reason: "length", completionTokens: 8 });
  expect(engine.stats()).toMatchObject({
    state: "ready",
    promptTokens: rendered.length,
    generatedTokens: 8,
    runningRequests: 0,
    waitingRequests: 0,
  });
});

test("an engine that drafts answers as one that does not, and counts what it drafted", async () => {
  await using bench = new EngineBench();
  const [plain, drafting] = [bench.start(), bench.start({ draft: "lookup" })];
  await Promise.all([plain.ready, drafting.ready]);
  const prompt = new Uint32Array(30).map((_, index) => 20 + (index % 5));
  const asked = { maxTokens: 200, sampling: { ...greedy, logitBias: [[20, 100]] as const } };
  expect((await ask(drafting, prompt, asked)).tokens).toEqual((await ask(plain, prompt, asked)).tokens);
  const { draftedTokens, acceptedTokens, generatedTokens } = drafting.stats();
  expect(generatedTokens).toBe(200);
  expect(acceptedTokens).toBeGreaterThan(0);
  expect(draftedTokens).toBeGreaterThanOrEqual(acceptedTokens);
  expect(plain.stats()).toMatchObject({ draftedTokens: 0, acceptedTokens: 0 });
});

test("text survives the tokenizer and back", async () => {
  await using bench = new EngineBench();
  const engine = bench.start();
  await engine.ready;
  const text = "the naïve 日本語 👍 answer<|end|>";
  const tokens = await engine.tokenize(text, { special: true, begin: false });
  expect(tokens.at(-1)).toBe(4);
  expect(await engine.detokenize(tokens)).toBe(text);
  expect((await engine.tokenize("<|end|>", { special: false, begin: false })).length).toBeGreaterThan(1);
  await expect(engine.detokenize(Uint32Array.of(600))).rejects.toMatchObject({ code: "BAD_REQUEST" });
});

test("requests that cannot be served are refused with the field at fault", async () => {
  await using bench = new EngineBench();
  const engine = bench.start();
  await engine.ready;
  await expect(ask(engine, Uint32Array.of(1, 512))).rejects.toMatchObject({ code: "BAD_REQUEST", field: "prompt" });
  await expect(ask(engine, "")).rejects.toMatchObject({ code: "BAD_REQUEST", field: "prompt" });
  await expect(ask(engine, "x", { maxTokens: 0 })).rejects.toMatchObject({ code: "BAD_REQUEST", field: "max_tokens" });
  await expect(ask(engine, someTokens(1024, 1))).rejects.toMatchObject({ code: "PROMPT_TOO_LONG" });
  expect((await ask(engine, someTokens(1023, 1), { maxTokens: 9 })).end.completionTokens).toBe(1);
});

test("a stop text over several tokens ends the answer before it", async () => {
  await using bench = new EngineBench();
  const engine = bench.start();
  await engine.ready;
  const prompt = someTokens(30, 3);
  const whole = await ask(engine, prompt, { maxTokens: 30 });
  const at = Math.floor(whole.text.length / 2);
  const stop = whole.text.slice(at, at + 6);
  const cut = await ask(engine, prompt, { maxTokens: 30, stop: [stop] });
  expect(cut.text).toBe(whole.text.slice(0, whole.text.indexOf(stop)));
  expect(cut.end.reason).toBe("stop");
});

test("a second engine process reads what the first one computed, from the cache", async () => {
  await using bench = new EngineBench();
  const { cache, socketPath } = await bench.openCache();
  const prompt = someTokens(400, 4);
  const one = bench.start({ socketPath });
  await one.ready;
  await until(() => cache.stats().sessions === 1);
  const cold = await ask(one, prompt);
  expect(cold.report.computedTokens).toBe(400);
  await until(() => one.stats().savedChunks === 7);

  const two = bench.start({ socketPath });
  await two.ready;
  await until(() => cache.stats().sessions === 2);
  const warm = await ask(two, prompt);
  expect(warm.report).toMatchObject({ promptTokens: 400, computedTokens: 1, reused: { memory: 399 } });
  expect(warm.tokens).toEqual(cold.tokens);
  await until(() => cache.stats().leases === 0);
  cache.check();
});

test("short chats that branch early share their beginning, each in a sequence of its own", async () => {
  await using bench = new EngineBench();
  const engine = bench.start({ sequences: 4 });
  await engine.ready;
  const chat = (content: string) => ({ messages: [{ role: "user", content: textContent(content) }] });
  for (const content of ["1 2 3 4 5 6", "1 2 3 4 5 9"]) await ask(engine, chat(content));
  const { report, tokens } = await ask(engine, chat("1 2 3 9 9 9"));
  const common = await engine.tokenize("<|user|>\n1 2 3 ", { special: true, begin: true });
  expect(report.reused.resident).toBeGreaterThanOrEqual(common.length - 1);
  const cold = bench.start({ sequences: 1 });
  await cold.ready;
  expect(tokens).toEqual((await ask(cold, chat("1 2 3 9 9 9"))).tokens);
});

test("deterministic: another process gives the same log-probabilities from stored KV, bit for bit", async () => {
  await using bench = new EngineBench();
  const { cache, socketPath } = await bench.openCache();
  const prompt = someTokens(500, 15);
  const [one, two] = [1, 2].map(() => bench.start({ socketPath, deterministic: true }));
  await Promise.all([one!.ready, two!.ready]);
  await until(() => cache.stats().sessions === 2);
  const run = async (engine: LlamaEngine) => {
    const events = [];
    for await (const event of engine.generate(request(prompt, { logprobs: 4 }), new AbortController().signal))
      events.push(event);
    return events;
  };
  const [report, ...cold] = await run(one!);
  expect(report).toMatchObject({ report: { computedTokens: 500 } });
  await until(() => one!.stats().savedChunks === 7);
  const [reused, ...warm] = await run(two!);
  expect(reused).toMatchObject({ report: { computedTokens: 500 - 448, reused: { memory: 448 } } });
  expect(warm).toEqual(cold);
});

test("a cache that goes away costs nothing, and is used again when it is back", async () => {
  await using bench = new EngineBench();
  const first = await bench.openCache();
  const { socketPath } = first;
  const engine = bench.start({ socketPath });
  await engine.ready;
  await until(() => first.cache.stats().sessions === 1);
  await first.server[Symbol.asyncDispose]();
  const started = performance.now();
  await ask(engine, someTokens(200, 5));
  expect(performance.now() - started).toBeLessThan(1000);

  const second = await bench.openCache({ socketPath });
  await until(() => second.cache.stats().sessions === 1);
  const saved = engine.stats().savedChunks;
  await ask(engine, someTokens(200, 50));
  await until(() => engine.stats().savedChunks === saved + 4);
});

test("a cache that accepts and says nothing costs no request", async () => {
  await using bench = new EngineBench();
  const socketPath = join(bench.path, "mute.sock");
  const sockets: Socket[] = [];
  const mute = createServer((socket) => sockets.push(socket.on("error", () => {})));
  await new Promise<void>((resolve) => mute.listen(socketPath, resolve));
  const engine = bench.start({ socketPath });
  await engine.ready;
  await until(() => sockets.length > 0);
  expect((await ask(engine, someTokens(200, 5))).report.loadMs).toBeLessThan(10);
  for (const socket of sockets) socket.destroy();
  mute.close();
});

test("the chosen tokens and their rivals are reported with their bytes", async () => {
  await using bench = new EngineBench();
  const engine = bench.start();
  await engine.ready;
  const tokens = [];
  for await (const event of engine.generate(
    request(someTokens(20, 14), { logprobs: 3 }),
    new AbortController().signal,
  )) {
    if (event.kind === "text") tokens.push(...event.logprobs!);
  }
  expect(tokens).toHaveLength(8);
  for (const { token, logprob, text, bytes, top } of tokens) {
    expect(top.map((rival) => rival.token)).toContain(token);
    expect(top).toHaveLength(3);
    expect(logprob).toBeLessThanOrEqual(0);
    expect(Buffer.from(bytes).toString("utf8")).toBe(text);
  }
});

test("a client that leaves stops a running prefill within 200 ms", async () => {
  await using bench = new EngineBench(slowModel);
  const engine = bench.start({ contextTokens: 8192, sequences: 1 });
  await engine.ready;
  const leave = new AbortController();
  const events = engine.generate(request(someTokens(8000, 6, 8192)), leave.signal);
  const first = events.next();
  first.catch(() => {}); // expected below
  await until(() => engine.stats().runningRequests === 1);
  await new Promise((resolve) => setTimeout(resolve, 300)); // well into the prompt
  const left = performance.now();
  leave.abort();
  await expect(first).rejects.toMatchObject({ code: "CANCELLED" });
  const { report } = await ask(engine, someTokens(8, 7, 8192), { maxTokens: 1 });
  expect(report.ttftMs).toBeLessThan(200);
  expect(performance.now() - left).toBeLessThan(250);
});

test("more requests than the queue holds are refused, and leaving the queue makes room", async () => {
  await using bench = new EngineBench();
  const engine = bench.start({ sequences: 1 }, { maxWaiting: 1 });
  await engine.ready;
  const signal = new AbortController();
  const long = engine.generate(request(someTokens(20, 8), { maxTokens: 900 }), signal.signal);
  await long.next();
  const waiting = new AbortController();
  const second = engine.generate(request(someTokens(20, 9)), waiting.signal).next();
  second.catch(() => {}); // expected below
  expect(engine.stats()).toMatchObject({ runningRequests: 1, waitingRequests: 1 });
  await expect(ask(engine, someTokens(20, 10))).rejects.toMatchObject({ code: "QUEUE_FULL" });
  waiting.abort();
  await expect(second).rejects.toMatchObject({ code: "CANCELLED" });
  const third = ask(engine, someTokens(20, 10));
  signal.abort();
  expect((await third).tokens).toHaveLength(8);
});

test("an engine that is killed fails its requests, is started again and serves the next", async () => {
  await using bench = new EngineBench();
  const { cache, socketPath } = await bench.openCache();
  const engine = bench.start({ socketPath });
  await engine.ready;
  await until(() => cache.stats().sessions === 1);
  const prompt = someTokens(300, 11);
  const { tokens } = await ask(engine, prompt);
  await until(() => engine.stats().savedChunks === 5);

  const running = ask(engine, someTokens(20, 12), { maxTokens: 900 });
  running.catch(() => {}); // expected below
  await until(() => engine.stats().runningRequests === 1);
  process.kill(engine.pid!, "SIGKILL");
  await expect(running).rejects.toMatchObject({ code: "ENGINE_FAILED" });
  const next = await ask(engine, prompt);
  expect(next.tokens).toEqual(tokens);
  expect(engine.stats()).toMatchObject({ state: "ready", restarts: 1 });
  cache.check();
});

test("files that are no model are refused for what they are", async () => {
  await using bench = new EngineBench();
  const refusalOf = async (path: string) => {
    const engine = bench.start({}, { modelPath: path });
    return engine.ready.then(
      () => "loaded",
      (error: unknown) => error,
    );
  };
  expect(await refusalOf(join(bench.path, "none.gguf"))).toMatchObject({ code: "MODEL_NOT_FOUND" });
  expect(await refusalOf(bench.path)).toMatchObject({ code: "MODEL_NOT_FOUND" });
  const other = join(bench.path, "other.gguf");
  writeFileSync(other, "PK\u0003\u0004 this is an archive, not a model at all");
  expect(await refusalOf(other)).toMatchObject({ code: "MODEL_INVALID", message: expect.stringContaining("GGUF") });
  writeFileSync(other, Buffer.concat([Buffer.from("GGUF"), Buffer.from([9, 0, 0, 0]), Buffer.alloc(100, 1)]));
  expect(await refusalOf(other)).toMatchObject({
    code: "MODEL_INVALID",
    message: expect.stringContaining("version 9"),
  });
  truncateSync(bench.modelPath, 100_000);
  expect(await refusalOf(bench.modelPath)).toMatchObject({ code: "MODEL_INVALID" });
});

test.each([16, 200, 256, 257])("a context of %i tokens is served whole, prompt and answer", async (contextTokens) => {
  await using bench = new EngineBench();
  const engine = bench.start({ contextTokens });
  expect((await engine.ready).contextTokens).toBe(contextTokens);
  const { end } = await ask(engine, someTokens(contextTokens - 9, 31), { maxTokens: 100 });
  expect(end).toMatchObject({ reason: "length", completionTokens: 9 });
});

test("a context too small for any chat is refused with the least that can be had", async () => {
  await using bench = new EngineBench();
  await expect(bench.start({ contextTokens: 15 }).ready).rejects.toMatchObject({
    code: "BAD_CONFIG",
    message: expect.stringContaining("--context 16 or more"),
  });
});

test("a context that does not fit into memory is refused with what it needs", async () => {
  await using bench = new EngineBench({ ...slowModel, context: 2 ** 24 });
  const engine = bench.start({ contextTokens: 2 ** 24, sequences: 64 });
  await expect(engine.ready).rejects.toMatchObject({
    code: "NOT_ENOUGH_MEMORY",
    message: expect.stringContaining("GiB"),
  });
  await expect(ask(engine, "x")).rejects.toMatchObject({ code: "ENGINE_FAILED" });
});

test("a server that is killed takes its engine process along", async () => {
  await using bench = new EngineBench();
  const settings = { sequences: 1, threads: 1, gpu: "off", deterministic: false };
  const options = { settings, modelPath: bench.modelPath, dataDirectory: bench.path, maxWaiting: 1 };
  const program = `
    import { LlamaEngine } from ${JSON.stringify(new URL("../../../../dist/engines/llama/server/engine.js", import.meta.url).href)};
    import { silentLog } from ${JSON.stringify(new URL("../../../../dist/log.js", import.meta.url).href)};
    const options = ${JSON.stringify(options)};
    const engine = LlamaEngine.start({ ...options, log: silentLog });
    await engine.ready;
    console.log(engine.pid);`;
  const server = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = (await once(server.stdout, "data")) as [Buffer];
  const pid = Number(line.toString());
  expect(process.kill(pid, 0)).toBe(true);
  server.kill("SIGKILL");
  await until(() => !isAlive(pid));
});

test("closing ends the process and what runs in it", async () => {
  await using bench = new EngineBench();
  const engine: LlamaEngine = bench.start();
  await engine.ready;
  const running = ask(engine, someTokens(20, 13), { maxTokens: 900 });
  running.catch(() => {}); // expected below
  const pid = engine.pid!;
  await engine[Symbol.asyncDispose]();
  await expect(running).rejects.toMatchObject({ code: "CANCELLED" });
  expect(() => process.kill(pid, 0)).toThrow("ESRCH");
});

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    if (codeOf(error) === "ESRCH") return false;
    throw error;
  }
}
