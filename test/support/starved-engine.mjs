/**
 * Run by a test under a low limit of open files: takes all that are left but a few, kills the engine's processes, and looks
 * whether they come back when there are files again. Prints one line for each round.
 */
import { closeSync, openSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const [modelPath, dataDirectory, program, ...counts] = process.argv.slice(2);
const built = (path) => import(new URL(`../../dist/${path}`, import.meta.url).href);
const { LlamaEngine } = await built("engines/llama/server/engine.js");
const { greedy } = await built("engine.js");

const faults = [];
const log = { debug() {}, info() {}, warn() {}, error: (message) => faults.push(message), named: () => log };
const settings = { sequences: 1, threads: 1, gpu: "off", deterministic: false, socketPath: undefined };

for (const left of counts.map(Number)) {
  const engine = LlamaEngine.start({ settings, modelPath, dataDirectory, maxWaiting: 4, log });
  await engine.ready;
  await ask(engine);
  const taken = takeAllBut(left);
  faults.length = 0;
  for (const pid of program === "engine" ? [engine.pid] : engine.tokenizerPids) process.kill(pid, "SIGKILL");
  await sleep(700); // the restart, and one more after a pause
  for (const file of taken) closeSync(file);
  await untilAnswered(engine);
  console.log(JSON.stringify({ left, faults }));
  await engine[Symbol.asyncDispose]();
}

function takeAllBut(left) {
  const taken = [];
  try {
    for (;;) taken.push(openSync("/dev/null", "r"));
  } catch (error) {
    if (error.code !== "EMFILE") throw error;
  }
  for (const file of taken.splice(0, left)) closeSync(file);
  return taken;
}

async function ask(engine) {
  const request = { prompt: "the rain", sampling: greedy, maxTokens: 2, stop: [], ignoreEnd: true };
  const cache = { salt: "", read: false, save: false };
  for await (const event of engine.generate({ ...request, cache }, AbortSignal.timeout(20_000))) void event;
}

/** A request may be lost with the process; the next ones are not. */
async function untilAnswered(engine) {
  const end = performance.now() + 20_000;
  for (;;) {
    try {
      return await ask(engine);
    } catch (error) {
      if (performance.now() > end) throw error;
      await sleep(50);
    }
  }
}
