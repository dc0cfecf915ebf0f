/**
 * What does it take to choose a token of a vocabulary, beside llama.cpp's own samplers over the same logits?
 *
 *     npm run bench -- sampling [--rounds 40]
 *
 * Logits of two shapes: as a model has them that knows what comes next (peaked), and with hardly any differences (flat). By turns, so
 * that a machine that grows busy favours nobody. Medians, in microseconds.
 */
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { type Sampling, greedy } from "../src/engine.ts";
import { Candidates } from "../src/engines/llama/process/candidates.ts";
import { Sampler } from "../src/engines/llama/process/sampler.ts";
import { SeededDraws } from "../src/engines/llama/process/seeded-draws.ts";
import { createBatch, floatsAt } from "../src/ffi/llama.ts";
import { LlamaSamplers } from "../test/support/llama-samplers.ts";
import { library, loadTiny } from "../test/support/scheduler-rig.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "40" } } });
const rounds = Number(values.rounds);
const vocabularies = [32_000, 151_936, 262_144];

/** Questions as clients ask them; `default` has no fields at all. */
const questions: Readonly<Record<string, Partial<Sampling>>> = {
  greedy: {},
  default: { temperature: 1 },
  "top_p 0.95": { temperature: 0.7, topP: 0.95 },
  "min_p 0.05": { temperature: 0.7, minP: 0.05 },
  "top_k 40, top_p 0.95": { temperature: 0.7, topK: 40, topP: 0.95 },
  "top_k 5000": { temperature: 0.7, topK: 5000 },
  "presence 0.5": { temperature: 1, presencePenalty: 0.5 },
};
/** What the penalties look back on. */
const answer = Array.from({ length: 300 }, (_, i) => (i * 37) % 1000);

/** Logits in llama.cpp's own memory, where its samplers look for them. */
function logitsOf(vocabulary: number): { readonly context: bigint; readonly logits: Float32Array } {
  const { functions } = library;
  const model = loadTiny({ family: "llama", vocabulary, embedding: 64, heads: 1, layers: 1 });
  const params = { ...functions.defaultContextParams(), n_ctx: 256, n_batch: 8, n_ubatch: 8, n_threads: 1 };
  const context = functions.createContext(model.pointer, params)!; // small enough for every machine
  const batch = createBatch(functions, 1);
  [batch.tokens[0], batch.positions[0], batch.sequences[0]![0], batch.outputs[0]] = [5, 0, 0, 1];
  batch.struct.n_tokens = 1;
  if (functions.decode(context, batch.struct) !== 0) throw new Error("llama.cpp computed nothing");
  return { context, logits: floatsAt(functions.logitsAt(context, 0)!, vocabulary) };
}

function fill(logits: Float32Array, shape: "peaked" | "flat"): void {
  const draws = new SeededDraws(1);
  const normal = () => Math.sqrt(-2 * Math.log(1 - draws.next())) * Math.cos(2 * Math.PI * draws.next());
  for (let token = 0; token < logits.length; token += 1) logits[token] = normal() * (shape === "flat" ? 0.5 : 2.2);
  if (shape === "flat") return;
  for (let rank = 1; rank <= 200; rank += 1) {
    logits[Math.floor(draws.next() * logits.length)] = 18 - 3.6 * Math.log(rank);
  }
}

const figures: Record<string, object> = {};
for (const vocabulary of vocabularies) {
  const { context, logits } = logitsOf(vocabulary);
  const place = { logits: () => logits, candidates: new Candidates(vocabulary) };
  for (const shape of ["peaked", "flat"] as const) {
    fill(logits, shape);
    const arms = Object.entries(questions).map(([name, fields]) => {
      const sampling = { ...greedy, seed: 1, ...fields };
      const hasPenalty = sampling.presencePenalty !== 0;
      const sampler = new Sampler({ sampling, never: [], prompt: new Uint32Array(0) });
      const llama = new LlamaSamplers({ sampling, vocabularySize: vocabulary, answer: hasPenalty ? answer : [] });
      if (hasPenalty) for (const token of answer) sampler.remember(token);
      return {
        name,
        ours: { draw: () => sampler.sample(place, 0, []), times: [] as number[] },
        llama: { draw: () => llama.sample(context, 0), times: [] as number[] },
      };
    });
    for (let round = -10; round < rounds; round += 1) {
      for (const arm of arms) {
        for (const side of round % 2 === 0 ? [arm.ours, arm.llama] : [arm.llama, arm.ours]) {
          const started = performance.now();
          side.draw();
          if (round >= 0) side.times.push(performance.now() - started);
        }
      }
    }
    const us = (times: readonly number[]) => rounded(1000 * median(times));
    figures[`${vocabulary} ${shape}`] = Object.fromEntries(
      arms.map(({ name, ours, llama }) => [name, { ours: us(ours.times), llama: us(llama.times) }]),
    );
  }
}
printLine("sampling", figures, { rounds });
