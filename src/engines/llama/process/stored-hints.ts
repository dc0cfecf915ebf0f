/**
 * What the cache holds of those who wait: asked once of each in the background, so that the known texts among them can come first.
 * What is not known, or not yet, counts as nothing. The answer decides an order only; who is admitted asks again.
 */
import { within } from "../../../deadline.ts";
import { describe } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import type { EngineRequest } from "../messages.ts";
import type { FindStoredKv } from "./stored-kv.ts";

export interface StoredHintsOptions {
  readonly stored: FindStoredKv;
  /** The measured cost of computing a token, in milliseconds. */
  readonly computeMsPerToken: () => number;
  readonly log: Log;
}

/** A later answer is no answer: shared stores take some round trips. */
const answerMs = 1000;
/** Questions at a time: those of requests that have a sequence are not to wait behind them. */
const mostAsked = 4;

export class StoredHints {
  readonly #options: StoredHintsOptions;
  /** Tokens that are worth loading; 0 until the cache has answered. */
  readonly #tokens = new WeakMap<EngineRequest, number>();
  #asked = 0;

  constructor(options: StoredHintsOptions) {
    this.#options = options;
  }

  /** Tokens of the request's prompt that it would load, as far as is known. */
  of(request: EngineRequest): number {
    return this.#tokens.get(request) ?? 0;
  }

  /** Asks for a request, unless it was asked for before, there is no cache yet, or enough is asked at the moment. */
  ask(request: EngineRequest): void {
    const stored = this.#options.stored();
    const { tokens, cache } = request;
    if (stored === undefined || !cache.read || this.#tokens.has(request) || this.#asked === mostAsked) return;
    this.#tokens.set(request, 0);
    this.#asked += 1;
    const root = { salt: cache.salt, tenant: cache.tenant, adapter: "" };
    const computeMsPerToken = this.#options.computeMsPerToken();
    within(stored.session.lookup(root, tokens, { deadlineMs: answerMs, computeMsPerToken }), answerMs)
      .then((answer) => {
        if (answer === "late") return;
        this.#tokens.set(request, Math.min(answer.worthTokens, answer.hitTokens, tokens.length - 1));
      })
      .catch((error: unknown) => {
        this.#options.log.debug(`what is stored of a waiting request is not known: ${describe(error)}`);
      })
      .finally(() => (this.#asked -= 1));
  }
}
