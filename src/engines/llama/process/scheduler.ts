/**
 * The scheduler: which tokens go through the model next.
 *
 * Each turn decides, runs, applies: plan-step.ts says what every context computes, run-batch.ts computes it, apply-batch.ts
 * draws tokens and tells. A decode is synchronous; between steps the event loop sees messages, cache answers and timers.
 *
 *     waiting ──► placed in a sequence ──► loading ──► prefill ──► decoding ──► ended: the KV stays resident and is saved
 *     (admission.ts)                                                              (resident-kv.ts)
 *
 * All sequences share a context: on CPU each has a stream of cells of its own there, on GPU the cells are unified. In deterministic mode
 * every sequence has a context of its own, and prompts are cut into slices at fixed positions: then a token's KV has the same bits
 * whatever is cached and whoever else is served.
 */
import type { RepriseError } from "../../../errors.ts";
import type { GenerateEvent } from "../../../engine.ts";
import type { Log } from "../../../log.ts";
import { nextAdmission } from "./admission.ts";
import type { Waiting } from "./admission.ts";
import { applyBatch } from "./apply-batch.ts";
import type { ApplyOptions } from "./apply-batch.ts";
import type { Context, DecodeResult } from "./context.ts";
import { Generation, tenantOf } from "./generation.ts";
import type { EngineRequest } from "../messages.ts";
import type { Model } from "../model/model.ts";
import { Neighbours } from "./neighbours.ts";
import { planBeside, planStep } from "./plan-step.ts";
import { PrefillCost } from "./prefill-cost.ts";
import { ResidentKv } from "./resident-kv.ts";
import { runBatch } from "./run-batch.ts";
import { Sequence } from "./sequence.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import type { RowCost } from "./row-cost.ts";
import { draftsOf, runningOf } from "./step.ts";
import type { Batch, RunningSequence } from "./step.ts";
import { loadStoredPrefix } from "./stored-prefix.ts";
import type { FindStoredKv } from "./stored-kv.ts";
import type { TiledAttention } from "./tiled-attention.ts";
import { TurnQueue } from "../turn-queue.ts";

/** What the scheduler tells of. */
export interface SchedulerListener {
  /** The request left the queue. */
  onStarted(id: number): void;
  onEvent(id: number, event: GenerateEvent): void;
  onFailed(id: number, error: RepriseError): void;
  onSaved(chunks: number): void;
  /** A decode was stopped by the abort flag: clear it, now that the reason is known. */
  onAborted(): Promise<void>;
}

export interface SchedulerOptions {
  readonly model: Model;
  /** One for all sequences, or one for each. */
  readonly contexts: readonly Context[];
  /** Tokens of prompt and answer of one request. */
  readonly contextTokens: number;
  /** How payloads look; undefined = this family's KV is not reused. */
  readonly layout: PayloadLayout | undefined;
  /** Deterministic mode: tokens per slice, which is the chunk size. */
  readonly sliceTokens: number | undefined;
  /** A decode cannot be stopped: every step is kept short, so that a cancelled request does not hold the others up. */
  readonly shortSteps: boolean;
  readonly stored: FindStoredKv;
  /** Were the weights written to since the last look? Then what was computed with them may be of the old ones or of both. */
  readonly weightsChanged: () => boolean;
  /** First guess of the cost of a prompt token; measured from then on. */
  readonly computeMsPerToken: number;
  /** Undefined = prompt pieces of any size cost the same. */
  readonly attention: TiledAttention | undefined;
  /** What drafts are weighed by; undefined = nothing is drafted. Contexts need room for what they add ({@link ContextOptions.draftRows}). */
  readonly rowCost?: RowCost | undefined;
  readonly listener: SchedulerListener;
  readonly log: Log;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #sequences: Sequence[];
  readonly #waiting = new TurnQueue<Waiting>();
  readonly #kv: ResidentKv;
  readonly #apply: ApplyOptions;
  readonly #cost: PrefillCost;
  readonly #neighbours: Neighbours | undefined;
  #steps = 0;
  #closed = false;
  #wake: (() => void) | undefined;
  /** What the last step took that had next tokens in it. */
  #stepMs = Infinity;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    const { contexts, contextTokens, layout, sliceTokens, stored, weightsChanged, listener, log } = options;
    const sequences = contexts.flatMap((context) =>
      Array.from({ length: context.sequences }, (_, id) => new Sequence(context, id, contextTokens)),
    );
    this.#sequences = sequences;
    this.#cost = new PrefillCost(options.computeMsPerToken);
    this.#kv = new ResidentKv({
      sequences,
      layout,
      sliceTokens,
      stored,
      weightsChanged,
      onSaved: (chunks) => listener.onSaved(chunks),
      wake: () => this.#wake?.(),
      log,
    });
    this.#apply = {
      sequences,
      kv: this.#kv,
      sliceTokens,
      onEvent: (id, event) => listener.onEvent(id, event),
      onFailed: (id, error) => listener.onFailed(id, error),
      log,
    };
    if (layout !== undefined) {
      const computeMsPerToken = () => this.#cost.msPerToken;
      this.#neighbours = new Neighbours({ sequences, layout, sliceTokens, computeMsPerToken });
    }
  }

  /** Takes a request; it ends with an end event or a failure, unless it is cancelled. */
  submit(request: EngineRequest): void {
    this.#waiting.add(tenantOf(request), { request, accepted: performance.now() });
    this.#wake?.();
  }

  /** Forgets a request; nothing more is said of it. Unknown ids have ended already. */
  cancel(id: number): void {
    this.#waiting.remove(({ request }) => request.id === id);
    const sequence = this.#sequences.find(({ generation }) => generation?.request.id === id);
    if (sequence?.generation === undefined) return;
    const { generation } = sequence;
    generation.cancel();
    // Whoever loads for it hears of it; nobody else does.
    if (generation.phase !== "loading") this.#kv.end(sequence, generation);
  }

  /** Nothing runs, waits or is being saved. */
  get idle(): boolean {
    return this.#waiting.size === 0 && this.#running().length === 0 && this.#kv.isSaved;
  }

  /** Chunks of what was answered that the cache does not have yet. */
  get unsavedChunks(): number {
    return this.#kv.unsavedChunks;
  }

  /** Serves until {@link close}. */
  async run(): Promise<void> {
    while (!this.#closed) {
      this.#admit();
      await this.#letLoadsAdvance();
      const stepped = await this.#step();
      const saving = this.#kv.save(planBeside(this.#running(), this.#stepMs).saveMs);
      if (stepped || saving) await nextTurn();
      else await this.#sleep();
    }
  }

  /** The books are right. Between steps only. */
  check(): void {
    this.#kv.check();
  }

  close(): void {
    this.#closed = true;
    this.#wake?.();
  }

  #running(): RunningSequence[] {
    return runningOf(this.#sequences, this.#options.contexts);
  }

  #isLoading(): boolean {
    return this.#sequences.some(({ generation }) => generation?.phase === "loading");
  }

  async #letLoadsAdvance(): Promise<void> {
    const end = performance.now() + planBeside(this.#running(), this.#stepMs).loadMs;
    while (this.#isLoading() && performance.now() < end) await nextTurn();
  }

  /** Waits for something to do: a request, a loaded prefix, slots to write. */
  async #sleep(): Promise<void> {
    const startable = this.#waiting.size > 0 && this.#sequences.some(({ generation }) => generation === undefined);
    const runnable = this.#running().some(({ phase }) => phase !== "loading");
    if (this.#closed || startable || runnable) return nextTurn(); // a request may wait for an answer of the cache
    if (this.idle) for (const context of this.#options.contexts) context.rest();
    await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#wake = undefined;
  }

  #admit(): void {
    const { model, contextTokens, layout, sliceTokens, rowCost, listener } = this.#options;
    while (this.#waiting.size > 0) {
      this.#kv.taintChangedWeights();
      const canReuse = layout !== undefined;
      const admission = nextAdmission(this.#waiting, this.#sequences, { canReuse, sliceTokens });
      if (admission === undefined || !this.#kv.isFree(admission.placement)) return;
      const { tenant, request, accepted, placement } = admission;
      this.#waiting.take(tenant);
      const generation = new Generation(request, { model, contextTokens, accepted, rowCost });
      this.#kv.begin(generation, placement);
      listener.onStarted(request.id);
      this.#load(placement.sequence, generation);
    }
  }

  /** Loads what is stored or held beside it, in the background of the others' steps, and lets the generation compute the rest. */
  #load(sequence: Sequence, generation: Generation): void {
    const { layout } = this.#options;
    if (layout === undefined || !generation.request.cache.read) {
      generation.startPrefill();
      return;
    }
    generation.phase = "loading";
    void this.#loadPrefix(sequence, generation, layout).then(() => {
      if (generation.cancelled) this.#kv.end(sequence, generation);
      else generation.startPrefill();
      this.#wake?.();
    });
  }

  async #loadPrefix(sequence: Sequence, generation: Generation, layout: PayloadLayout): Promise<void> {
    const { sliceTokens, log } = this.#options;
    const stored = this.#options.stored();
    if (stored !== undefined) {
      await loadStoredPrefix({
        stored,
        layout,
        sequence,
        generation,
        computeMsPerToken: this.#cost.msPerToken,
        wholeChunks: sliceTokens !== undefined,
        makeRoom: () => this.#kv.dropIdle(sequence.context),
        log,
      });
      this.#kv.taintChangedWeights();
    }
    await this.#neighbours?.copyInto(sequence, generation);
  }

  /** One decode in every context that has something to do. @returns whether there was one */
  async #step(): Promise<boolean> {
    this.#steps += 1;
    const { sliceTokens, shortSteps, contextTokens, attention } = this.#options;
    const now = { computeMsPerToken: this.#cost.msPerToken, turn: this.#steps };
    const alike = this.#options.contexts[0]!.layout === "streams"; // there is one at least, and all are made alike
    const step = planStep(this.#running(), { sliceTokens, alike, shortSteps, contextTokens, attention, ...now });
    const started = performance.now();
    for (const batch of step.batches) if ((await this.#decode(batch)) === "aborted") break;
    if (step.decoding > 0) this.#stepMs = performance.now() - started;
    return step.batches.length > 0;
  }

  async #decode(batch: Batch): Promise<DecodeResult> {
    const context = this.#options.contexts[batch.context]!; // plans name contexts of the engine
    const started = performance.now();
    const result = runBatch(batch, context, this.#sequences);
    if (result.decoded === "aborted") await this.#options.listener.onAborted();
    applyBatch(batch, result, context, this.#apply);
    if (result.decoded === "done") this.#measured(batch, performance.now() - started);
    return result.decoded;
  }

  #measured(batch: Batch, elapsedMs: number): void {
    const { decodes, slices } = batch;
    this.#cost.measured(elapsedMs, slices);
    if (slices.length > 0) return;
    const drafts = draftsOf(batch);
    for (const { sequence } of decodes) {
      this.#sequences[sequence]!.generation?.drafts?.stepped(elapsedMs, decodes.length, drafts); // plans name sequences of the engine
    }
  }
}

/** Lets messages, sockets and timers have their turn. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
