/**
 * The scheduler: which tokens go through the model next.
 *
 * A step is one `llama_decode` per context that has something to do: one token for every sequence that decodes, and the
 * prompt pieces that prompt-slicer.ts chooses. On CPU every slot has a context of its own, on GPU all share one. Decode is
 * synchronous; between steps the event loop sees messages, cache answers and timers.
 *
 *     waiting ──► placed in a slot ──► loading ──► reading ──► decoding ──► ended: the KV stays resident and is saved
 *
 * In deterministic mode every slot has a context of its own, too, and prompts are cut into slices at fixed positions: then a token's KV has the same bits whatever is cached and whoever else is served.
 */
import { RepriseError, assert } from "../../errors.ts";
import type { GenerateEvent } from "../../engine.ts";
import type { Log } from "../../log.ts";
import type { Context, DecodeResult } from "./context.ts";
import { Generation } from "./generation.ts";
import type { Work } from "./generation.ts";
import type { Model } from "./model.ts";
import { place } from "./placement.ts";
import { Saver } from "./saver.ts";
import { PromptSlicer } from "./prompt-slicer.ts";
import type { Slice } from "./prompt-slicer.ts";
import { Sequence } from "./sequence.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { loadStoredPrefix } from "./stored-prefix.ts";
import type { FindStoredKv } from "./stored-kv.ts";
import type { TiledAttention } from "./tiled-attention.ts";

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
  /** One for all slots, or one for each. */
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
  /** First guess of the cost of a prompt token; measured from then on. */
  readonly computeMsPerToken: number;
  /** Undefined = prompt pieces of any size cost the same. */
  readonly attention: TiledAttention | undefined;
  readonly listener: SchedulerListener;
  readonly log: Log;
}

/** Time at most for saving between two steps, and while nothing else is to be done. */
const saveMs = 5;
const idleSaveMs = 20;
/** Time at most that loads get before a step. */
const loadMs = 25;
/** While answers run, saving and loading take no more than these shares of the time that their next token takes. */
const saveShare = 0.2;
const loadShare = 0.5;

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #sequences: Sequence[];
  readonly #waiting: { work: Work; accepted: number }[] = [];
  readonly #saver: Saver | undefined;
  readonly #slicer: PromptSlicer;
  #uses = 0;
  #closed = false;
  #wake: (() => void) | undefined;
  /** What the last step took that had next tokens in it. */
  #stepMs = Infinity;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#slicer = new PromptSlicer(options);
    this.#sequences = options.contexts.flatMap((context) =>
      Array.from({ length: context.sequences }, (_, id) => new Sequence(context, id, options.contextTokens)),
    );
    const { layout, stored, log } = options;
    if (layout !== undefined) {
      const wake = () => this.#wake?.();
      const onSaved = (chunks: number) => options.listener.onSaved(chunks);
      this.#saver = new Saver({ stored, layout, log, wake, onSaved });
    }
  }

  /** Takes a request; it ends with an end event or a failure, unless it is cancelled. */
  submit(work: Work): void {
    this.#waiting.push({ work, accepted: performance.now() });
    this.#wake?.();
  }

  /** Forgets a request; nothing more is said of it. Unknown ids have ended already. */
  cancel(id: number): void {
    const index = this.#waiting.findIndex(({ work }) => work.id === id);
    if (index !== -1) this.#waiting.splice(index, 1);
    const sequence = this.#sequences.find(({ generation }) => generation?.work.id === id);
    if (sequence?.generation === undefined) return;
    sequence.generation.cancelled = true;
    // Whoever loads for it looks at the mark; nobody else does.
    if (sequence.generation.phase !== "loading") this.#leave(sequence);
  }

  /** Nothing runs, waits or is being saved. */
  get idle(): boolean {
    return this.#waiting.length === 0 && this.#running().length === 0 && this.#saver?.idle !== false;
  }

  /** Chunks of what was answered that the cache does not have yet. */
  get unsavedChunks(): number {
    return this.#saver?.unsavedChunks ?? 0;
  }

  /** Serves until {@link close}. */
  async run(): Promise<void> {
    while (!this.#closed) {
      this.#admit();
      await this.#letLoadsAdvance();
      const stepped = await this.#step();
      const saving =
        this.#saver?.work(this.#running().length > 0 ? this.#share(saveShare, saveMs) : idleSaveMs) === true;
      if (stepped || saving) await nextTurn();
      else await this.#sleep();
    }
  }

  /** A step may take hundreds of milliseconds, an answer of the cache a few: loads get a moment before each step. */
  async #letLoadsAdvance(): Promise<void> {
    const end = performance.now() + this.#share(loadShare, loadMs);
    while (this.#isAny("loading") && performance.now() < end) await nextTurn();
  }

  /** Time that may pass between two steps: of what a step takes while answers run, so that these go on at nearly their speed. */
  #share(share: number, mostMs: number): number {
    return this.#isAny("decoding") ? Math.min(mostMs, share * this.#stepMs) : mostMs;
  }

  #isAny(phase: Generation["phase"]): boolean {
    return this.#sequences.some(({ generation }) => generation?.phase === phase);
  }

  /** What slots say they hold is what llama.cpp holds, and nobody is in the temporary sequence. Between steps only. */
  check(): void {
    for (const { context, id, count } of this.#sequences) {
      assert(context.length(id) === count, `sequence ${id} holds ${context.length(id)} tokens, ${count} are counted`);
    }
    for (const context of this.#options.contexts) {
      assert(context.length(context.sequences) === 0, "the temporary sequence is left empty");
    }
  }

  close(): void {
    this.#closed = true;
    this.#wake?.();
  }

  /** Waits for something to do: a request, a loaded prefix, slots to write. */
  async #sleep(): Promise<void> {
    const startable = this.#waiting.length > 0 && this.#sequences.some(({ generation }) => generation === undefined);
    const runnable = this.#running().some(({ generation }) => generation?.phase !== "loading");
    if (this.#closed || startable || runnable) return nextTurn(); // a request may wait for an answer of the cache
    await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#wake = undefined;
  }

  #running(): Sequence[] {
    return this.#sequences.filter(({ generation }) => generation !== undefined);
  }

  #admit(): void {
    while (this.#waiting.length > 0) {
      const { work, accepted } = this.#waiting[0]!; // not empty
      const { model, contextTokens, layout, sliceTokens, listener } = this.#options;
      const placement = place(this.#sequences, {
        prompt: work.tokens,
        salt: work.cache.salt,
        reuse: layout !== undefined && work.cache.read,
        sliceTokens,
      });
      if (placement === undefined) return;
      const { sequence, prefix, donor } = placement;
      // Right after an answer, where it is to be saved is not known yet: with the slot its next turn would lose it.
      if (this.#saver?.isAsking(sequence, donor === undefined ? prefix : 0) === true) return;
      this.#waiting.shift();
      const generation = new Generation(work, { model, contextTokens, accepted });
      generation.countReused("resident", prefix);
      this.#truncate(sequence, donor === undefined ? prefix : 0);
      if (donor !== undefined) sequence.shareFrom(donor, prefix);
      sequence.salt = work.cache.salt;
      sequence.generation = generation;
      this.#use(sequence);
      listener.onStarted(work.id);
      this.#load(sequence, generation);
    }
  }

  /** Loads what is stored, in the background of the others' steps, and then lets the generation read the rest. */
  #load(sequence: Sequence, generation: Generation): void {
    const { layout, sliceTokens, log } = this.#options;
    const stored = this.#options.stored();
    if (layout === undefined || stored === undefined || !generation.work.cache.read) {
      generation.startReading();
      return;
    }
    generation.phase = "loading";
    const loading = loadStoredPrefix({
      stored,
      layout,
      sequence,
      generation,
      computeMsPerToken: this.#slicer.computeMsPerToken,
      wholeChunks: sliceTokens !== undefined,
      makeRoom: () => this.#dropIdle(sequence.context),
      log,
    });
    void loading.then(() => {
      if (generation.cancelled) this.#leave(sequence);
      else generation.startReading();
      this.#wake?.();
    });
  }

  /** One decode in every context that has something to do. */
  async #step(): Promise<boolean> {
    const active = this.#running().filter(({ generation }) => generation?.phase !== "loading");
    const decoding = active.filter(({ generation }) => generation?.phase === "decoding");
    const reading = active.filter(({ generation }) => generation?.phase === "reading");
    const slices = this.#slicer.next(decoding.length, reading);
    const started = performance.now();
    for (const context of this.#options.contexts) {
      const isHere = (sequence: Sequence) => sequence.context === context;
      const result = await this.#decode(
        context,
        decoding.filter(isHere),
        slices.filter(({ sequence }) => isHere(sequence)),
      );
      if (result === "aborted") break;
    }
    if (decoding.length > 0) this.#stepMs = performance.now() - started;
    return active.length > 0;
  }

  async #decode(context: Context, decoding: readonly Sequence[], slices: readonly Slice[]): Promise<DecodeResult> {
    if (decoding.length + slices.length === 0) return "done";
    const outputs: { sequence: Sequence; index: number }[] = [];
    context.begin();
    for (const sequence of decoding) {
      const { generation, id, count } = sequence;
      outputs.push({ sequence, index: context.add(id, count, generation!.next, true) }); // decoding has generations
    }
    for (const { sequence, tokens, padding, last } of slices) {
      for (const [offset, token] of tokens.entries()) {
        const wanted = last && offset === tokens.length - 1;
        const index = context.add(sequence.id, sequence.count + offset, token, wanted);
        if (wanted) outputs.push({ sequence, index });
      }
      const end = sequence.count + tokens.length;
      for (let row = 0; row < padding; row += 1) context.add(sequence.id, end + row, 0, false);
    }

    const started = performance.now();
    const result = context.decode(decoding.length + this.#slicer.cost(slices));
    const active = [...decoding, ...slices.map(({ sequence }) => sequence)];
    if (result === "aborted") await this.#options.listener.onAborted();
    else if (result === "no room") this.#makeRoom(context, active);
    else if (result !== "done") this.#fail(active, `llama_decode returned ${result.failed}`);
    if (result !== "done") return result;

    for (const { sequence, index } of outputs.slice(0, decoding.length)) {
      sequence.append(Uint32Array.of(context.batch.tokens[index]!)); // what was put there above
    }
    for (const { sequence, tokens, padding } of slices) {
      sequence.append(tokens);
      if (padding > 0) context.truncate(sequence.id, sequence.count);
      if (sequence.count % (this.#options.sliceTokens ?? Infinity) === 0) sequence.markExact();
    }
    // The first use of the logits copies them from where they were computed; it belongs to the step.
    for (const { sequence, index } of outputs) this.#draw(sequence, index);
    this.#slicer.measured(performance.now() - started, slices);
    return result;
  }

  #draw(sequence: Sequence, index: number): void {
    const generation = sequence.generation!; // outputs are of running sequences
    const wasReading = generation.phase === "reading";
    const events = generation.draw(sequence.context, index);
    for (const event of events) this.#options.listener.onEvent(generation.work.id, event);
    if (wasReading) this.#savePrompt(sequence);
    if (events.at(-1)?.kind === "end") this.#leave(sequence);
  }

  /** Whole chunks of the prompt, as soon as the first token is out. */
  #savePrompt(sequence: Sequence): void {
    const stored = this.#options.stored();
    const { work } = sequence.generation!; // just drawn for
    if (stored === undefined || !work.cache.save) return;
    const { chunkTokens } = stored.session;
    const whole = Math.floor(work.tokens.length / chunkTokens) * chunkTokens;
    this.#saver?.add(sequence, work.tokens.subarray(0, whole), work.cache.salt);
  }

  /** Takes a generation out of its slot. What it computed stays there and is saved, where that is allowed. */
  #leave(sequence: Sequence): void {
    const generation = sequence.generation!; // callers have one
    generation.free();
    sequence.generation = undefined;
    this.#use(sequence);
    const { work, reusedTokens } = generation;
    if (this.#options.layout === undefined) this.#truncate(sequence, 0);
    else if (this.#options.sliceTokens !== undefined) this.#truncate(sequence, sequence.exactCount);
    if (!work.cache.save) this.#truncate(sequence, Math.min(sequence.count, reusedTokens));
    else this.#saver?.add(sequence, sequence.held, work.cache.salt);
    this.#wake?.();
  }

  /** Nothing computed in a failed step can be trusted: the slots are emptied. */
  #fail(sequences: readonly Sequence[], what: string): void {
    this.#options.log.error(`${what}; ${sequences.length} requests fail`);
    for (const sequence of sequences) {
      const { work } = sequence.generation!; // callers have one
      sequence.generation?.free();
      sequence.generation = undefined;
      this.#truncate(sequence, 0);
      this.#options.listener.onFailed(work.id, new RepriseError("ENGINE_FAILED", `The request failed: ${what}`));
    }
  }

  /** No free cells: idle slots go first, then the longest request. */
  #makeRoom(context: Context, active: readonly Sequence[]): void {
    if (this.#dropIdle(context) > 0) return;
    const longest = active.reduce((best, sequence) => (sequence.count > best.count ? sequence : best));
    this.#fail([longest], "the context has no room left");
  }

  #dropIdle(context: Context): number {
    const idle = this.#sequences.filter(
      (sequence) => sequence.context === context && sequence.generation === undefined && sequence.count > 0,
    );
    for (const sequence of idle) this.#truncate(sequence, 0);
    return idle.length;
  }

  #truncate(sequence: Sequence, to: number): void {
    if (to < sequence.count) this.#saver?.settle(sequence, to);
    sequence.truncate(to);
  }

  #use(sequence: Sequence): void {
    this.#uses += 1;
    sequence.lastUsed = this.#uses;
  }
}

/** Lets messages, sockets and timers have their turn. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
