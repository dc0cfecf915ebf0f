/**
 * The engine's inside without its process: a tiny model, its contexts and a scheduler, driven by the test.
 */
import { mkdtempSync, openSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { greedy } from "../../src/engine.ts";
import type { GenerateEvent, PromptReport } from "../../src/engine.ts";
import { type CellLayout, Context } from "../../src/engines/llama/process/context.ts";
import { familyFacts, measureLayout, refusal } from "../../src/engines/llama/process/family.ts";
import type { EngineRequest } from "../../src/engines/llama/messages.ts";
import { openLibrary } from "../../src/engines/llama/model/library.ts";
import { LoadableModel, identityOf } from "../../src/engines/llama/model/model-files.ts";
import { Model } from "../../src/engines/llama/model/model.ts";
import { mostDrafting, mostDrafts } from "../../src/engines/llama/process/drafts.ts";
import type { RowCost } from "../../src/engines/llama/process/row-cost.ts";
import { Scheduler } from "../../src/engines/llama/process/scheduler.ts";
import { payloadBytes } from "../../src/engines/llama/process/sequence-state.ts";
import type { StoredKv } from "../../src/engines/llama/process/stored-kv.ts";
import { StepThreads } from "../../src/engines/llama/process/thread-choice.ts";
import { TiledAttention } from "../../src/engines/llama/process/tiled-attention.ts";
import type { RepriseError } from "../../src/errors.ts";
import { silentLog } from "../../src/log.ts";
import { FakeCache } from "./fake-cache.ts";
import { writeTinyGguf } from "./tiny-gguf.ts";
import type { TinyModel } from "./tiny-gguf.ts";

export const library = openLibrary({ gpu: "off", log: silentLog });
export const chunkTokens = 64;

export function loadModel(path: string): Model {
  const descriptors = [openSync(path, "r")]; // for as long as the test's process lives
  const file = new LoadableModel({ path, identity: identityOf(descriptors), descriptors });
  return Model.load({ library, file, onProgress: () => true });
}

export function loadTiny(tiny: TinyModel): Model {
  const path = join(mkdtempSync(join(tmpdir(), "reprise-model-")), "tiny.gguf");
  writeTinyGguf(path, tiny);
  return loadModel(path);
}

/** A shape whose attention costs so much that every piece that can be padded is. */
const dear = { layers: 1000, heads: 1, headSize: 64, parameters: 1000, threads: 1 };

export interface Answer {
  readonly report: PromptReport;
  readonly text: string;
  readonly tokens: readonly number[];
  readonly events: readonly GenerateEvent[];
}

export interface RigOptions {
  readonly sequences?: number;
  readonly contextTokens?: number;
  readonly deterministic?: boolean;
  /** In streams, as on CPU, prompt pieces are padded wherever that is possible. A context for each: as in deterministic mode. */
  readonly layout?: CellLayout | "own";
  /** What a row of a batch takes at least, in ms: the tiny model's take less than a copy of its KV. */
  readonly rowMs?: number;
  /** Cells of the one context; undefined = as many as all sequences may need. */
  readonly cells?: number;
  /** That compute; 1 unless given. */
  readonly threads?: number;
  /** In place of one that makes every piece be padded. */
  readonly attention?: TiledAttention;
  /** A cache that another rig filled. */
  readonly cache?: FakeCache;
  /** Another cache in its place. */
  readonly stored?: StoredKv;
  /** Unless given, the weights stay what they are. */
  readonly weightsChanged?: () => boolean;
  /** What the engine believes that a prompt token costs, before it has measured it; 1 unless given. */
  readonly computeMsPerToken?: number;
  /** Tokens are drafted, and weighed by this. */
  readonly rowCost?: RowCost;
}

/** Drafts cost nothing: they are computed wherever there are some. */
export const freeRows: RowCost = { share: 0, measured: () => {} };

export class Rig {
  readonly model: Model;
  readonly contexts: Context[];
  readonly cache: FakeCache;
  readonly scheduler: Scheduler;
  /** Undefined = the family refuses reuse. */
  readonly reuse: boolean;
  savedChunks = 0;
  /** Whom each decode was for; undefined: for several. */
  readonly decodedFor: (number | undefined)[] = [];
  #nextId = 1;
  readonly #listeners = new Map<
    number,
    { event: (event: GenerateEvent) => void; failed: (error: RepriseError) => void }
  >();
  readonly #running: Promise<void>;

  constructor(model: Model, options: RigOptions = {}) {
    const { sequences = 2, contextTokens = 1024, deterministic = false, threads = 1 } = options;
    const { layout = deterministic ? "own" : "unified" } = options;
    const shape = {
      library,
      model,
      threads: new StepThreads(threads, { deterministic }),
      threadPool: threads > 1 ? library.createThreadPool(threads) : undefined,
      abortFlag: undefined,
      draftRows: options.rowCost === undefined ? 0 : mostDrafting * mostDrafts,
    };
    this.model = model;
    this.contexts =
      layout === "own"
        ? Array.from({ length: sequences }, () => Context.create({ ...shape, cells: contextTokens, sequences: 1 }))
        : [Context.create({ ...shape, cells: options.cells ?? sequences * contextTokens, sequences, layout })];
    for (const context of this.contexts) slow(context, options.rowMs ?? 0);
    this.reuse = refusal(familyFacts(model)) === undefined;
    const payloads = this.reuse ? this.contexts.map((context) => measureLayout(context).layout)[0] : undefined;
    const slotBytes = payloads === undefined ? 0 : payloadBytes(payloads, chunkTokens);
    this.cache = options.cache ?? new FakeCache({ chunkTokens, slotBytes, slots: 200 });
    this.scheduler = new Scheduler({
      model,
      contexts: this.contexts,
      contextTokens,
      layout: payloads,
      sliceTokens: deterministic ? chunkTokens : undefined,
      shortSteps: false,
      maxGapMs: 120,
      stored: () => options.stored ?? this.cache,
      weightsChanged: options.weightsChanged ?? (() => false),
      computeMsPerToken: options.computeMsPerToken ?? 1,
      attention: layout === "unified" ? undefined : (options.attention ?? new TiledAttention(dear)),
      rowCost: options.rowCost,
      log: silentLog,
      listener: {
        onStarted: () => {},
        onEvent: (id, event) => this.#listeners.get(id)?.event(event),
        onFailed: (id, error) => this.#listeners.get(id)?.failed(error),
        onSaved: (chunks) => (this.savedChunks += chunks),
        onDecoding: (id) => void this.decodedFor.push(id),
        onAborted: () => Promise.resolve(),
      },
    });
    this.#running = this.scheduler.run();
  }

  /** Runs a request to its end. */
  ask(prompt: Uint32Array | string, request: Partial<Omit<EngineRequest, "id" | "tokens">> = {}): Promise<Answer> {
    return this.start(prompt, request).answer;
  }

  start(
    prompt: Uint32Array | string,
    request: Partial<Omit<EngineRequest, "id" | "tokens">> = {},
  ): { id: number; answer: Promise<Answer> } {
    const id = this.#nextId++;
    const tokens =
      typeof prompt === "string" ? this.model.vocabulary.tokenize(prompt, { special: true, begin: false }) : prompt;
    const answer = new Promise<Answer>((resolve, reject) => {
      const events: GenerateEvent[] = [];
      const event = (event: GenerateEvent) => {
        events.push(event);
        if (event.kind === "end") resolve(answerOf(events));
      };
      this.#listeners.set(id, { event, failed: reject });
    });
    this.scheduler.submit({
      id,
      tokens,
      sampling: greedy,
      maxTokens: 8,
      stop: [],
      ignoreEnd: true,
      cache: { salt: "", read: true, save: true },
      ...request,
    });
    return { id, answer };
  }

  /** Resolves when nothing runs and all is saved; the books must be right then. */
  async settled(): Promise<void> {
    while (!this.scheduler.idle) await new Promise((resolve) => setImmediate(resolve));
    this.scheduler.check();
  }

  async close(): Promise<void> {
    this.scheduler.close();
    await this.#running;
    for (const context of this.contexts) context.free();
  }
}

/** Makes steps of the context take so long for each of their rows. */
function slow(context: Context, rowMs: number): void {
  const decode = context.decode.bind(context);
  context.decode = (cost, drafts) => {
    const result = decode(cost, drafts);
    const end = performance.now() + rowMs * context.batch.struct.n_tokens;
    while (performance.now() < end); // as long as a processor would compute
    return result;
  };
}

function answerOf(events: readonly GenerateEvent[]): Answer {
  const prompt = events.find((event) => event.kind === "prompt");
  const texts = events.filter((event) => event.kind === "text");
  return {
    report: prompt!.report, // an answer begins with its report
    text: texts.map((event) => event.text).join(""),
    tokens: texts.flatMap((event) => event.tokens),
    events,
  };
}
