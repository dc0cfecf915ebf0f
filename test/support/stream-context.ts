import { Context } from "../../src/engines/llama/process/context.ts";
import { measureLayout } from "../../src/engines/llama/process/family.ts";
import { payloadBytes, type PayloadLayout } from "../../src/engines/llama/process/sequence-state.ts";
import { StepThreads } from "../../src/engines/llama/process/thread-choice.ts";
import type { Model } from "../../src/engines/llama/model/model.ts";
import { library as plainLibrary } from "./scheduler-rig.ts";

/** A context of three sequences with a stream of 512 cells each; on a "device", which is this machine's processor here, of one more. */
export class StreamContext {
  readonly context: Context;
  readonly layout: PayloadLayout;

  constructor(model: Model, layout: "streams" | "device", library = plainLibrary) {
    const threads = new StepThreads(1, { deterministic: true });
    const shape = { library, model, threads, threadPool: undefined, abortFlag: undefined };
    this.context = Context.create({ ...shape, cells: 3 * 512, sequences: 3, layout });
    this.layout = measureLayout(this.context).layout!; // of a plain model
  }

  /** Lets a sequence hold these tokens behind what it holds. @throws Error when llama.cpp does not */
  compute(sequence: number, tokens: Uint32Array, from = 0): void {
    const { context } = this;
    context.begin();
    for (const [i, token] of tokens.entries()) context.add(sequence, from + i, token, i === tokens.length - 1);
    const result = context.decode();
    if (result !== "done") throw new Error(`llama.cpp says ${JSON.stringify(result)}`);
  }

  /** A payload of what a sequence holds. @throws Error when it does not */
  saved(sequence: number, from: number, to: number): Uint8Array {
    const bytes = new Uint8Array(payloadBytes(this.layout, to - from));
    if (this.context.copies.save(sequence, from, to, bytes) !== bytes.length) throw new Error("nothing was saved");
    return bytes;
  }
}
