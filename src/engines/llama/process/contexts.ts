/**
 * Which contexts an engine has: one for all sequences, or in deterministic mode one for each; and how cells lie there.
 */
import { RepriseError } from "../../../errors.ts";
import type { Pointer } from "../../../ffi/llama.ts";
import type { Log } from "../../../log.ts";
import { isGpuBuild } from "../model/library-places.ts";
import type { Library } from "../model/library.ts";
import type { Model } from "../model/model.ts";
import { Context } from "./context.ts";
import type { CellLayout, ContextOptions } from "./context.ts";
import { canAbort, familyFacts, measureLayout, refusal } from "./family.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { StepThreads } from "./thread-choice.ts";

export interface ContextsOptions {
  readonly library: Library;
  readonly model: Model;
  /** Tokens of prompt and answer of one request. */
  readonly contextTokens: number;
  readonly sequences: number;
  readonly threads: number;
  readonly deterministic: boolean;
  /** Layers on the GPU; undefined = all. */
  readonly gpuLayers: number | undefined;
  /** Rows of a batch, at most, that are drafts. */
  readonly draftRows: number;
  readonly abortFlag: Pointer;
  readonly log: Log;
}

export interface Contexts {
  readonly contexts: readonly Context[];
  /** How payloads look; undefined = KV has a layout that is not known, or cannot be copied. */
  readonly payloads: PayloadLayout | undefined;
  /** What a token alone took. */
  readonly decodeMs: number;
  /** Cells that a text may have in a context, whoever else is there. */
  readonly cells: number;
}

type Threads = Pick<ContextOptions, "threads" | "threadPool">;

/** @throws RepriseError NOT_ENOUGH_MEMORY, LIBRARY_UNSUPPORTED */
export function makeContexts(options: ContextsOptions): Contexts {
  const layout = wantedLayout(options);
  const threads = threadsFor(options);
  if (layout === "unified") return makeIn(layout, options, threads);
  try {
    const made = makeIn(layout, options, threads);
    if (made.payloads !== undefined || refusal(familyFacts(options.model)) !== undefined) return made;
    for (const context of made.contexts) context.free();
  } catch (error) {
    // On a GPU there is one stream more.
    if (layout !== "device" || !(error instanceof RepriseError) || error.code !== "NOT_ENOUGH_MEMORY") throw error;
    options.log.warn(`${error.message}. A layout is taken that needs less and is slower`);
  }
  return makeIn("unified", options, threads);
}

/**
 * Attention looks at every cell of a store for every row, head and layer, its own or not: one store for all sequences made a
 * prompt beside three resident ones of 2,000 tokens take 2.4 times as long on a CPU, and a token beside three of 32,000 on an H200.
 */
function wantedLayout({ library, sequences, deterministic }: ContextsOptions): CellLayout {
  if (deterministic || sequences === 1 || library.kvTensors === undefined) return "unified";
  return isGpuBuild(library.build) ? "device" : "streams";
}

/** The threads of all contexts, also of those that are made in place of others: they live as long as the process. */
function threadsFor({ library, model, gpuLayers, threads, deterministic }: ContextsOptions): Threads {
  const isOnGpu = isGpuBuild(library.build) && areAllLayers(gpuLayers, model.functions.layers(model.pointer));
  const most = isOnGpu ? 1 : threads; // what is left for the processor is too small to be shared
  return {
    threads: new StepThreads(most, { deterministic }),
    threadPool: most > 1 ? library.createThreadPool(most) : undefined,
  };
}

/** Does `--gpu-layers` take all of a model? llama.cpp counts what follows its last layer as one more; people say 99. */
export function areAllLayers(gpuLayers: number | undefined, layers: number): boolean {
  return gpuLayers === undefined || gpuLayers > layers;
}

function makeIn(layout: CellLayout, options: ContextsOptions, threads: Threads): Contexts {
  const { library, model, contextTokens, sequences, deterministic, abortFlag } = options;
  const perContext = deterministic ? 1 : sequences;
  const count = deterministic ? sequences : 1;
  const contexts = Array.from({ length: count }, () =>
    Context.create({
      library,
      model,
      cells: perContext * contextTokens,
      sequences: perContext,
      layout,
      draftRows: options.draftRows,
      contexts: count,
      ...threads,
      abortFlag: canAbort(familyFacts(model)) ? abortFlag : undefined,
    }),
  );
  const measured = contexts.map((context) => measureLayout(context))[0]!; // at least one context
  const cells = (layout === "unified" ? perContext : 1) * contextTokens;
  options.log.debug(`cells lie ${layout}, rows are copied by ${contexts[0]!.copiedBy ?? "llama.cpp"}`); // one at least
  return { contexts, payloads: measured.layout, decodeMs: measured.decodeMs, cells };
}
