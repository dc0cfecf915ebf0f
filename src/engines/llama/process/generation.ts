/**
 * A request while it runs: from its prompt over the tokens it draws to the events its client sees.
 *
 *     loading ──► prefill ──► decoding ──► ended
 *     (stored KV)  (prompt slices)  (a token a step)
 *        ▲            │
 *        └─ following ┘   another request reads the same
 */
import type { GenerateEvent, PromptReport, TokenLogprob } from "../../../engine.ts";
import type { Tokens } from "../../../identity/tokens.ts";
import type { TierName } from "../../../tier.ts";
import type { Context } from "./context.ts";
import { logprobsOf } from "./logprobs.ts";
import type { EngineRequest } from "../messages.ts";
import type { Model } from "../model/model.ts";
import { Drafts, noDrafts } from "./drafts.ts";
import type { RowCost } from "./row-cost.ts";
import { Sampler } from "./sampler.ts";
import { TextStream } from "./text-stream.ts";
import type { Released } from "./text-stream.ts";

/** Who asks, for turns. */
export function tenantOf({ cache }: EngineRequest): string {
  return cache.tenant ?? "";
}

interface Drawn {
  readonly token: number;
  readonly logprob: (TokenLogprob & { readonly top: readonly TokenLogprob[] }) | undefined;
}

/** "following": another request reads what it needs (shared-reading.ts). */
export type Phase = "loading" | "following" | "prefill" | "decoding";

export class Generation {
  readonly request: EngineRequest;
  phase: Phase = "prefill";
  /** Drawn, but not computed yet. */
  next = 0;
  /** Undefined = nothing is drafted. */
  readonly drafts: Drafts | undefined;
  readonly reused: Partial<Record<TierName, number>> = {};
  loadMs = 0;
  readonly #model: Model;
  readonly #contextTokens: number;
  readonly #sampler: Sampler;
  readonly #stream: TextStream<Drawn>;
  readonly #accepted: number;
  readonly #stopTokens: ReadonlySet<number>;
  readonly #left = new AbortController();
  #prefillSince: number | undefined;
  #drawnTokens = 0;

  constructor(
    request: EngineRequest,
    options: { model: Model; contextTokens: number; accepted: number; rowCost?: RowCost | undefined },
  ) {
    this.request = request;
    this.#model = options.model;
    this.#contextTokens = options.contextTokens;
    this.#accepted = options.accepted;
    this.#stopTokens = new Set(request.stopTokens);
    this.#sampler = new Sampler({
      sampling: request.sampling,
      // A token that is to stop the answer may be drawn, also where the model's own end is ignored.
      never: request.ignoreEnd ? options.model.endTokens.filter((token) => !this.#stopTokens.has(token)) : [],
      prompt: request.tokens,
    });
    this.#stream = new TextStream(request.stop, { from: request.minTokens ?? 0 });
    const { rowCost } = options;
    const mostTokens = request.tokens.length + this.#mostTokens;
    this.drafts = rowCost && new Drafts({ prompt: request.tokens, mostTokens, rowCost });
  }

  /** Fires when the client leaves; the sequence is given up as soon as nobody waits for it. */
  get left(): AbortSignal {
    return this.#left.signal;
  }

  get cancelled(): boolean {
    return this.#left.signal.aborted;
  }

  cancel(): void {
    this.#left.abort();
  }

  /** Loading is over; the rest of the prompt is computed, by this request or by one that it follows. */
  startPrefill(): void {
    this.phase = "prefill";
    this.#prefillSince ??= performance.now();
  }

  countReused(tier: TierName, tokens: number): void {
    if (tokens > 0) this.reused[tier] = (this.reused[tier] ?? 0) + tokens;
  }

  /** What was reused is lost, and will be computed. */
  forgetReused(): void {
    for (const tier of Object.keys(this.reused) as TierName[]) delete this.reused[tier];
  }

  get reusedTokens(): number {
    return Object.values(this.reused).reduce((sum, tokens) => sum + tokens, 0);
  }

  /** Tokens that may follow `next`. With all of them, and the one that is drawn behind the last, the answer is not yet too long. */
  propose(): Tokens {
    return this.drafts?.propose(this.#mostTokens - this.#drawnTokens - 1) ?? noDrafts;
  }

  /** Draws the token after the batch's token `index`. @returns what the client sees of it; an end event is the last. */
  draw(context: Context, index: number): GenerateEvent[] {
    const events: GenerateEvent[] = [];
    if (this.phase === "prefill") {
      events.push({ kind: "prompt", report: this.#report() });
      this.phase = "decoding";
    }
    const token = this.#sampler.sample(context, index, this.#notYet());
    if (this.#model.isEnd(token) || this.#stopTokens.has(token)) return [...events, ...this.#end("stop")];

    this.#drawnTokens += 1;
    this.next = token;
    this.drafts?.drawn(token);
    const drawn = { token, logprob: this.#logprob(context, index, token) };
    const released = this.#stream.push(drawn, this.#model.piece(token));
    const text = textEvent(released);
    if (text !== undefined) events.push(text);
    if (released.stopped) return [...events, this.#endEvent("stop")];
    if (this.#drawnTokens >= this.#mostTokens) events.push(...this.#end("length"));
    return events;
  }

  /** That the answer may have: as many as were asked for, and as the context has room for. */
  get #mostTokens(): number {
    return Math.min(this.request.maxTokens, this.#contextTokens - this.request.tokens.length);
  }

  /** Tokens that would end the answer before it has as many as it must have. */
  #notYet(): readonly number[] {
    if (this.#drawnTokens >= (this.request.minTokens ?? 0)) return [];
    return [...this.#model.endTokens, ...this.#stopTokens];
  }

  #end(reason: "stop" | "length"): GenerateEvent[] {
    const rest = textEvent(this.#stream.finish());
    return rest === undefined ? [this.#endEvent(reason)] : [rest, this.#endEvent(reason)];
  }

  #endEvent(reason: "stop" | "length"): GenerateEvent {
    return { kind: "end", reason, completionTokens: this.#drawnTokens, ...this.drafts?.counts };
  }

  #report(): PromptReport {
    const now = performance.now();
    const promptTokens = this.request.tokens.length;
    return {
      promptTokens,
      computedTokens: promptTokens - this.reusedTokens,
      reused: { ...this.reused },
      anywhereTokens: 0,
      ttftMs: now - this.#accepted,
      prefillMs: now - (this.#prefillSince ?? now),
      loadMs: this.loadMs,
    };
  }

  #logprob(context: Context, index: number, token: number): Drawn["logprob"] {
    if (this.request.logprobs === undefined) return undefined;
    const { logprob, top } = logprobsOf(context.logits(index), token, this.request.logprobs);
    return {
      ...this.#named(token, logprob),
      top: top.map((ranked) => this.#named(ranked.token, ranked.logprob)),
    };
  }

  #named(token: number, logprob: number): TokenLogprob {
    const { bytes } = this.#model.piece(token);
    return { token, text: Buffer.from(bytes).toString("utf8"), bytes: [...bytes], logprob };
  }
}

function textEvent({ text, tokens }: Released<Drawn>): GenerateEvent | undefined {
  if (tokens.length === 0 && text === "") return undefined;
  const ids: number[] = [];
  const logprobs: NonNullable<Drawn["logprob"]>[] = [];
  for (const { token, logprob } of tokens) {
    ids.push(token);
    if (logprob !== undefined) logprobs.push(logprob);
  }
  return logprobs.length > 0 ? { kind: "text", text, tokens: ids, logprobs } : { kind: "text", text, tokens: ids };
}
