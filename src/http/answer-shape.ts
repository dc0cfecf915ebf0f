/**
 * The two forms in which OpenAI's API tells the same answer: chat messages and plain completions. One shape object serves
 * one request (completions count text offsets as they go).
 */
import type { GenerateEvent, PromptReport, TokenLogprob } from "../engine.ts";

export type TextEvent = Extract<GenerateEvent, { kind: "text" }>;
export type FinishReason = Extract<GenerateEvent, { kind: "end" }>["reason"];

export interface AnswerShape {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  /** The first choice of a stream, before any text; undefined when the form has none. */
  opening(): object | undefined;
  /** A piece of the answer, as a choice of a stream. */
  piece(event: TextEvent): object;
  /** The choice that ends a stream. */
  ending(reason: FinishReason): object;
  /** The answer in one piece. */
  whole(events: readonly TextEvent[], reason: FinishReason): object;
}

export function chatShape(): AnswerShape {
  const chunk = (delta: object, logprobs: object | null, reason: FinishReason | null) => ({
    index: 0,
    delta,
    logprobs,
    finish_reason: reason,
  });
  return {
    idPrefix: "chatcmpl-",
    object: "chat.completion",
    chunkObject: "chat.completion.chunk",
    opening: () => chunk({ role: "assistant", content: "" }, null, null),
    piece: (event) => chunk({ content: event.text }, chatLogprobs([event]), null),
    ending: (reason) => chunk({}, null, reason),
    whole: (events, reason) => ({
      index: 0,
      message: { role: "assistant", content: textOf(events), refusal: null },
      logprobs: chatLogprobs(events),
      finish_reason: reason,
    }),
  };
}

export function completionShape(): AnswerShape {
  let offset = 0;
  const choice = (events: readonly TextEvent[], reason: FinishReason | null) => {
    const logprobs = completionLogprobs(events, offset);
    offset += textOf(events).length;
    return { index: 0, text: textOf(events), logprobs, finish_reason: reason };
  };
  return {
    idPrefix: "cmpl-",
    object: "text_completion",
    chunkObject: "text_completion",
    opening: () => undefined,
    piece: (event) => choice([event], null),
    ending: (reason) => choice([], reason),
    whole: (events, reason) => choice(events, reason),
  };
}

export function usageOf(report: PromptReport, completionTokens: number): object {
  const cached = Object.values(report.reused).reduce((sum, tokens) => sum + tokens, 0);
  return {
    prompt_tokens: report.promptTokens,
    completion_tokens: completionTokens,
    total_tokens: report.promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cached },
  };
}

/** Reprise's own part of an answer: where the prompt's tokens came from, and what it took. */
export function repriseOf(report: PromptReport): object {
  return {
    prompt_tokens: report.promptTokens,
    computed_tokens: report.computedTokens,
    reused: { resident: 0, memory: 0, disk: 0, ...report.reused },
    anywhere_tokens: report.anywhereTokens,
    ttft_ms: report.ttftMs,
    prefill_ms: report.prefillMs,
    load_ms: report.loadMs,
  };
}

function textOf(events: readonly TextEvent[]): string {
  return events.map((event) => event.text).join("");
}

function chatLogprobs(events: readonly TextEvent[]): object | null {
  const tokens = events.flatMap((event) => event.logprobs ?? []);
  if (!events.some((event) => event.logprobs !== undefined)) return null;
  const entry = (token: TokenLogprob) => ({
    token: token.text,
    logprob: finite(token.logprob),
    bytes: [...token.bytes],
  });
  return {
    content: tokens.map((token) => ({ ...entry(token), top_logprobs: token.top.map((other) => entry(other)) })),
    refusal: null,
  };
}

function completionLogprobs(events: readonly TextEvent[], firstOffset: number): object | null {
  if (!events.some((event) => event.logprobs !== undefined)) return null;
  const tokens = events.flatMap((event) => event.logprobs ?? []);
  let offset = firstOffset;
  return {
    tokens: tokens.map((token) => token.text),
    token_logprobs: tokens.map((token) => finite(token.logprob)),
    top_logprobs: tokens.map((token) =>
      Object.fromEntries(token.top.map((other) => [other.text, finite(other.logprob)])),
    ),
    text_offset: tokens.map((token) => {
      const at = offset;
      offset += token.text.length;
      return at;
    }),
  };
}

/** JSON has no -Infinity; OpenAI's API writes -9999. */
function finite(logprob: number): number {
  return Math.max(logprob, -9999);
}
