/**
 * Requests as the workloads make them: greedy chats that either answer a question about notes, which can be checked, or
 * write a wanted number of tokens, which makes runs comparable.
 */
import type { WorkloadOption } from "./workload-definition.ts";
import type { BenchRequest } from "./workload.ts";

export interface ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

export interface ChatRequest {
  readonly id: string;
  readonly group: string;
  readonly messages: readonly ChatMessage[];
  /** Tokens to write, end or no end; a request with an expected answer ends where its answer does. */
  readonly outputTokens: number;
  readonly expected?: string | undefined;
}

/** More than the longest answer about notes has. */
const ANSWER_LIMIT_TOKENS = 32;

export function chatRequest({ id, group, messages, outputTokens, expected }: ChatRequest): BenchRequest {
  const path = "/v1/chat/completions";
  // A copy: the chat that it is taken from goes on.
  const common = { messages: [...messages], temperature: 0 };
  if (expected !== undefined) {
    return { id, group, path, body: { ...common, max_tokens: ANSWER_LIMIT_TOKENS }, expected };
  }
  return { id, group, path, body: { ...common, max_tokens: outputTokens, ignore_eos: true } };
}

/** The option that every workload has: how much is checked. */
export function checkedShareOption(what: string, share: string): WorkloadOption {
  return {
    value: "SHARE",
    help: `share of the ${what} whose answers are checked, whatever their length (for the shipped model; 0 for others)`,
    default: share,
  };
}

/** Whether number `index` of a row is checked: spread evenly, the first always unless the share is 0. */
export function isChecked(index: number, share: number): boolean {
  return Math.ceil((index + 1) * share) > Math.ceil(index * share);
}
