/** Real KV to measure with: what llama.cpp has computed of some notes, in chunks as the embedded engine stores them. */
import { sampleNotes } from "../../src/bench/notes/notes.ts";
import { rowsTogether, Context } from "../../src/engines/llama/process/context.ts";
import { measureLayout } from "../../src/engines/llama/process/family.ts";
import { physicalCores } from "../../src/engines/llama/model/machine.ts";
import { payloadBytes } from "../../src/engines/llama/process/sequence-state.ts";
import { StepThreads } from "../../src/engines/llama/process/thread-choice.ts";
import { chunkTokens, library, loadModel } from "../../test/support/scheduler-rig.ts";

/** ggml's numbers. The engine itself has f16. */
export const kvTypes = { f16: 1, bf16: 30, q8_0: 8 } as const;

/** @returns the payloads of consecutive chunks of a text of so many tokens, at least 64 */
export function realKv(modelFile: string, type: keyof typeof kvTypes, tokens: number): Uint8Array[] {
  const { functions } = library;
  const createContext: typeof functions.createContext = (model, params) =>
    functions.createContext(model, { ...params, type_k: kvTypes[type], type_v: kvTypes[type] });
  const model = loadModel(modelFile);
  const { text } = sampleNotes({ tokens: tokens * 2, seed: 7 });
  const ids = model.vocabulary.tokenize(text, { special: false, begin: true }).subarray(0, tokens);
  const context = Context.create({
    library: { ...library, functions: { ...functions, createContext } },
    model,
    cells: Math.ceil((2 * ids.length) / 256) * 256,
    sequences: 1,
    threads: new StepThreads(physicalCores(), { deterministic: true }),
    threadPool: undefined,
    abortFlag: undefined,
  });
  const layout = measureLayout(context).layout!; // of a plain model
  for (let from = 0; from < ids.length; from += rowsTogether) {
    context.begin();
    for (const [i, id] of ids.subarray(from, from + rowsTogether).entries()) context.add(0, from + i, id, false);
    if (context.decode() !== "done") throw new Error(`llama.cpp computed no tokens after ${from}`);
  }
  const room = new Uint8Array(payloadBytes(layout, chunkTokens));
  const payloads: Uint8Array[] = [];
  for (let from = 0; from + chunkTokens <= ids.length; from += chunkTokens)
    payloads.push(room.slice(0, context.copies.save(0, from, from + chunkTokens, room)));
  context.free();
  return payloads;
}
