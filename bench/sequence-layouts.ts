/**
 * How should the cells of several sequences lie, on a CPU? A step of one token of each, and a prompt slice beside them: every sequence in
 * a context of its own, all in one context whose cells are shared (unified), and all in one whose sequences have their own (streams).
 *
 *     npm run bench -- sequence-layouts [--model FILE] [--held 500] [--sequences 1,4,8,16] [--steps 30] [--threads 2]
 *
 * Every sequence holds `--held` tokens. Layouts go by turns, some steps each. Medians in milliseconds, of one token for all sequences.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { createBatch, flashAttentionEnabled, type ContextPointer, typeF16 } from "../src/ffi/llama.ts";
import { repositoryRoot } from "../test/support/repository.ts";
import { library, loadModel } from "../test/support/scheduler-rig.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: join(repositoryRoot, "models", "reprise-22m-q8_0.gguf") },
    held: { type: "string", default: "500" },
    sequences: { type: "string", default: "1,4,8,16" },
    steps: { type: "string", default: "30" },
    threads: { type: "string", default: "2" },
  },
});
const [held, steps, threads] = [values.held, values.steps, values.threads].map(Number) as [number, number, number];
const layouts = ["own", "unified", "streams"] as const;
type Layout = (typeof layouts)[number];
const batchTokens = 512;
const { functions } = library;
const model = loadModel(values.model);
const pool = threads > 1 ? library.createThreadPool(threads) : undefined;
const batch = createBatch(functions, batchTokens);

/** A row of the next batch. */
type Row = readonly [sequence: number, position: number, wantsOutput: boolean];

function makeContext(sequences: number, isUnified: boolean): ContextPointer {
  const cells = sequences * Math.ceil((held + steps * 10 + 256) / 256) * 256;
  const context = functions.createContext(model.pointer, {
    ...functions.defaultContextParams(),
    n_ctx: Math.max(batchTokens, cells),
    n_batch: batchTokens,
    n_ubatch: batchTokens,
    n_seq_max: sequences,
    n_outputs_max: sequences,
    n_threads: threads,
    n_threads_batch: threads,
    flash_attn_type: flashAttentionEnabled,
    type_k: typeF16,
    type_v: typeF16,
    kv_unified: isUnified,
  });
  if (context === null) throw new Error("there is no room for a context");
  if (pool !== undefined) functions.attachThreadPool(context, pool, pool);
  return context;
}

function decode(context: ContextPointer, rows: readonly Row[]): number {
  for (const [i, [sequence, position, wantsOutput]] of rows.entries()) {
    batch.tokens[i] = 300 + ((position * 7919 + sequence) % 3000);
    batch.positions[i] = position;
    batch.sequences[i]![0] = sequence;
    batch.outputs[i] = wantsOutput ? 1 : 0;
  }
  batch.struct.n_tokens = rows.length;
  const began = performance.now();
  const code = functions.decode(context, batch.struct);
  if (code !== 0) throw new Error(`llama.cpp answered ${code}`);
  return performance.now() - began;
}

/** Contexts with sequences that hold their tokens, and how a step of them all is made. */
class Arm {
  readonly #contexts: readonly ContextPointer[];
  readonly #perContext: number;
  #position = held;
  readonly tokenMs: number[] = [];

  constructor(layout: Layout, sequences: number) {
    this.#perContext = layout === "own" ? 1 : sequences;
    const count = layout === "own" ? sequences : 1;
    this.#contexts = Array.from({ length: count }, () => makeContext(this.#perContext, layout !== "streams"));
    for (const context of this.#contexts)
      for (let sequence = 0; sequence < this.#perContext; sequence += 1)
        for (let at = 0; at < held; at += batchTokens)
          decode(
            context,
            Array.from({ length: Math.min(batchTokens, held - at) }, (_, i) => [sequence, at + i, false]),
          );
  }

  step(): void {
    let ms = 0;
    for (const context of this.#contexts)
      ms += decode(
        context,
        Array.from({ length: this.#perContext }, (_, sequence) => [sequence, this.#position, true]),
      );
    this.#position += 1;
    this.tokenMs.push(ms);
  }

  free(): void {
    for (const context of this.#contexts) functions.freeContext(context);
  }
}

const figures: Record<string, object> = {};
for (const sequences of values.sequences.split(",").map(Number)) {
  const arms = layouts.map((layout) => [layout, new Arm(layout, sequences)] as const);
  for (let i = 0; i < steps; i += 5) for (const [, arm] of arms) for (let j = 0; j < 5; j += 1) arm.step();
  figures[sequences] = Object.fromEntries(arms.map(([layout, arm]) => [layout, rounded(median(arm.tokenMs))]));
  for (const [, arm] of arms) arm.free();
}
printLine("sequence-layouts", figures, { model: model.architecture, held, steps, threads });
