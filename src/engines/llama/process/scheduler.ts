/**
 * The scheduler: which tokens go through the model next.
 *
 * Each turn decides, runs, applies: plan-step.ts says what every context computes, run-batch.ts computes it, apply-batch.ts
 * draws tokens and tells. A decode is synchronous; between steps the event loop sees messages, cache answers and timers.
 *
 *     waiting ──► placed in a sequence ──► loading ──► prefill ──► decoding ──► ended: the KV stays resident and is saved
 *     (admission.ts)                          ▲           │                         (resident-kv.ts)
 *                                             └ following ┘ (shared-reading.ts)
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
import { ResidentMatches } from "./resident-matches.ts";
import { Sequence } from "./sequence.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { SharedReading } from "./shared-reading.ts";
import { draftsOf, runningOf } from "./step.ts";
import type { RowCost } from "./row-cost.ts";
import type { Batch, RunningSequence } from "./step.ts";
import { StoredHints } from "./stored-hints.ts";
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
  /** A decode begins that is for this request alone, and may be stopped when it leaves; undefined: it is for several. */
  onDecoding(id: number | undefined): void;
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
  /** Between two tokens of an answer, as far as prompts that are read meanwhile have a say. */
  readonly maxGapMs: number;
  /** First guess of the cost of a prompt token; measured from then on. */
  readonly computeMsPerToken: number;
  /** Undefined = prompt pieces of any size cost the same. */
  readonly attention: TiledAttention | undefined;
  /** What drafts are weighed by; undefined = nothing is drafted. Contexts need room for what they add ({@link ContextOptions.draftRows}). */
  readonly rowCost?: RowCost | undefined;
  readonly listener: SchedulerListener;
  readonly log: Log;
}

/** How the rows of a step are shared out to batches: see plan-step.ts. */
const batchesOf = { unified: "all", device: "prompts", streams: "sequences" } as const;

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #sequences: Sequence[];
  readonly #waiting = new TurnQueue<Waiting>();
  readonly #kv: ResidentKv;
  readonly #apply: ApplyOptions;
  readonly #cost: PrefillCost;
  readonly #matches: ResidentMatches;
  readonly #hints: StoredHints;
  readonly #neighbours: Neighbours | undefined;
  readonly #sharedReading: SharedReading | undefined;
  #steps = 0;
  #closed = false;
  #wake: (() => void) | undefined;
  /** What the last step took that had next tokens in it, and next tokens when they were last alone in a batch. */
  #stepMs = Infinity;
  #decodesMs = 0;

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
    const matches = new ResidentMatches(sliceTokens);
    this.#matches = matches;
    const computeMsPerToken = () => this.#cost.msPerToken;
    this.#hints = new StoredHints({ stored, computeMsPerToken, log });
    if (layout !== undefined) {
      const neighbours = new Neighbours({ sequences, layout, matches, sliceTokens, computeMsPerToken });
      const onTaken = (sequence: Sequence, generation: Generation) => this.#loaded(sequence, generation);
      this.#neighbours = neighbours;
      this.#sharedReading = new SharedReading({ sequences, neighbours, matches, sliceTokens, onTaken });
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
      this.#sharedReading?.arrange();
      this.#admit();
      await this.#letLoadsAdvance();
      this.#sharedReading?.arrange();
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
    const storedTokens = (request: EngineRequest) => this.#hints.of(request);
    const options = { canReuse: layout !== undefined, sliceTokens, matches: this.#matches, storedTokens };
    while (this.#waiting.size > 0) {
      this.#kv.taintChangedWeights();
      const admission = nextAdmission(this.#waiting, this.#sequences, options);
      if (admission === undefined || !this.#kv.isFree(admission.placement)) break;
      const { tenant, waiting, placement } = admission;
      const { request, accepted } = waiting;
      this.#waiting.take(tenant, waiting);
      const generation = new Generation(request, { model, contextTokens, accepted, rowCost });
      this.#kv.begin(generation, placement);
      listener.onStarted(request.id);
      this.#load(placement.sequence, generation);
    }
    if (layout === undefined || this.#waiting.size < 2) return;
    for (const { request } of this.#waiting) this.#hints.ask(request);
  }

  /** Loads what is stored or held beside it, in the background of the others' steps, and lets the generation compute the rest. */
  #load(sequence: Sequence, generation: Generation): void {
    const { layout } = this.#options;
    if (layout === undefined || !generation.request.cache.read) {
      generation.startPrefill();
      return;
    }
    generation.phase = "loading";
    void this.#loadPrefix(sequence, generation, layout).then(() => this.#loaded(sequence, generation));
  }

  #loaded(sequence: Sequence, generation: Generation): void {
    if (generation.cancelled) this.#kv.end(sequence, generation);
    else generation.startPrefill();
    this.#wake?.();
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
        isAlone: () => this.#running().length === 1,
        makeRoom: () => this.#kv.dropIdle(sequence.context),
        log,
      });
      this.#kv.taintChangedWeights();
    }
    await this.#neighbours?.takeInto(sequence, generation);
  }

  /** One decode in every context that has something to do. @returns whether there was one */
  async #step(): Promise<boolean> {
    this.#steps += 1;
    const { sliceTokens, shortSteps, contextTokens, attention, maxGapMs } = this.#options;
    const running = this.#sharedReading?.inTurn(this.#running()) ?? this.#running();
    const beside = planBeside(running, this.#stepMs);
    // What goes on between two steps is part of the gap, and so are the next tokens' own batches.
    const stepMs = maxGapMs - this.#decodesMs - beside.loadMs - beside.saveMs;
    const { unitMs, smallUnitMs } = this.#cost;
    const now = { stepMs, unitMs, smallUnitMs, turn: this.#steps };
    const { layout, batch } = this.#options.contexts[0]!; // there is one at least, and all are made alike
    const kind = { batches: batchesOf[layout], batchTokens: batch.capacity };
    const step = planStep(running, { sliceTokens, ...kind, shortSteps, contextTokens, attention, ...now });
    const started = performance.now();
    for (const batch of step.batches) if ((await this.#decode(batch)) === "aborted") break;
    if (step.decoding > 0) this.#stepMs = performance.now() - started;
    return step.batches.length > 0;
  }

  async #decode(batch: Batch): Promise<DecodeResult> {
    const context = this.#options.contexts[batch.context]!; // plans name contexts of the engine
    const { listener } = this.#options;
    const started = performance.now();
    listener.onDecoding(onlyRequest(batch, this.#sequences));
    const result = runBatch(batch, context, this.#sequences);
    if (result.decoded === "aborted") await listener.onAborted();
    applyBatch(batch, result, context, this.#apply);
    if (result.decoded === "done") {
      const isDone = result.outputs.length > 0 || context.layout !== "device";
      this.#measured(batch, performance.now() - started, isDone);
    }
    return result.decoded;
  }

  #measured(batch: Batch, elapsedMs: number, isDone: boolean): void {
    const { decodes, slices } = batch;
    this.#cost.measured(elapsedMs, batch, isDone);
    if (slices.length > 0) return;
    this.#decodesMs = elapsedMs;
    const drafts = draftsOf(batch);
    for (const { sequence } of decodes) {
      this.#sequences[sequence]!.generation?.drafts?.stepped(elapsedMs, decodes.length, drafts); // plans name sequences of the engine
    }
  }
}

/** The request whose prompt is read, where nothing else is computed. */
function onlyRequest({ decodes, slices }: Batch, sequences: readonly Sequence[]): number | undefined {
  const [slice] = slices;
  if (slice === undefined || slices.length > 1 || decodes.length > 0) return undefined;
  return sequences[slice.sequence]!.generation?.request.id; // plans name sequences of the engine
}

/** Lets messages, sockets and timers have their turn. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
