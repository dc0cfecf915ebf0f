/**
 * An answer as OpenAI's API tells it: a head, choices and usage, whole or in chunks. Chats and completions differ in their
 * choices only.
 */
import { assert } from "../../errors.ts";
import type { GenerateEvent, PromptReport } from "../../engine.ts";
import { openAiError } from "../openai-error.ts";
import type { Refusal } from "../refusal.ts";
import { dataFrame } from "../sse.ts";
import { type AnswerHead, type AnswerWriter, type EndEvent, gathered, type TextEvent } from "./form.ts";

export interface OpenAiOptions {
  /** Send a last chunk with the usage; `"always"`: the usage so far in every chunk as well. */
  readonly includeUsage: boolean | "always";
}

/** The choices of one answer (completions count text offsets as they go). */
export interface Choices {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  /** The first choice of a stream, before any text; undefined when there is none. */
  opening(): object | undefined;
  /** A piece of the answer, as a choice of a stream. */
  piece(event: TextEvent): object;
  /** The choice that ends a stream. */
  ending(reason: EndEvent["reason"]): object;
  /** The answer in one piece. */
  whole(events: readonly TextEvent[], reason: EndEvent["reason"]): object;
}

const doneFrame = "data: [DONE]\n\n";

export class OpenAiWriter implements AnswerWriter {
  readonly #head: object;
  readonly #choices: Choices;
  readonly #includeUsage: OpenAiOptions["includeUsage"];
  #report: PromptReport | undefined;
  /** That were told so far. */
  #tokens = 0;

  constructor({ id, created, model, fingerprint }: AnswerHead, { includeUsage }: OpenAiOptions, choices: Choices) {
    this.#head = { id: `${choices.idPrefix}${id}`, created, model, system_fingerprint: fingerprint };
    this.#choices = choices;
    this.#includeUsage = includeUsage;
  }

  frames(event: GenerateEvent): string[] {
    if (event.kind === "prompt") {
      this.#report = event.report;
      const opening = this.#choices.opening();
      return opening === undefined ? [] : [this.#chunk([opening])];
    }
    if (event.kind === "text") {
      this.#tokens += event.tokens.length;
      return [this.#chunk([this.#choices.piece(event)])];
    }
    assert(this.#report !== undefined, "the engine ended an answer without its prompt report");
    const reprise = repriseOf(this.#report);
    const usage = usageOf(this.#report, event.completionTokens);
    const ending = this.#choices.ending(event.reason);
    return this.#includeUsage !== false
      ? [this.#chunk([ending]), this.#chunk([], { usage, reprise }), doneFrame]
      : [this.#chunk([ending], { reprise }), doneFrame];
  }

  failure(refusal: Refusal): string[] {
    return [dataFrame(openAiError(refusal).body)];
  }

  whole(events: readonly GenerateEvent[]): object {
    const { report, texts, end } = gathered(events);
    return {
      ...this.#head,
      object: this.#choices.object,
      choices: [this.#choices.whole(texts, end.reason)],
      usage: usageOf(report, end.completionTokens),
      reprise: repriseOf(report),
    };
  }

  /** With `include_usage` every chunk has the field: null until the last, or what there is so far. */
  #chunk(choices: readonly object[], more: object = {}): string {
    const soFar = this.#includeUsage === "always" && this.#report ? usageOf(this.#report, this.#tokens) : null;
    return dataFrame({
      ...this.#head,
      object: this.#choices.chunkObject,
      choices,
      ...(this.#includeUsage !== false && { usage: soFar }),
      ...more,
    });
  }
}

function usageOf(report: PromptReport, completionTokens: number): object {
  const cached = Object.values(report.reused).reduce((sum, tokens) => sum + tokens, 0);
  return {
    prompt_tokens: report.promptTokens,
    completion_tokens: completionTokens,
    total_tokens: report.promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cached },
  };
}

/** Reprise's own part of an answer: where the prompt's tokens came from, and what it took. */
function repriseOf(report: PromptReport): object {
  return {
    prompt_tokens: report.promptTokens,
    computed_tokens: report.computedTokens,
    reused: { resident: 0, memory: 0, disk: 0, ...report.reused }, // stores that hosts share where something came from there
    anywhere_tokens: report.anywhereTokens,
    ttft_ms: tenths(report.ttftMs),
    prefill_ms: tenths(report.prefillMs),
    load_ms: tenths(report.loadMs),
  };
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}

export function textOf(events: readonly TextEvent[]): string {
  return events.map((event) => event.text).join("");
}

/** JSON has no -Infinity; OpenAI's API writes -9999. */
export function finite(logprob: number): number {
  return Math.max(logprob, -9999);
}
