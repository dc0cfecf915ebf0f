/**
 * A refusal in the words of OpenAI's API: `{"error":{"message","type","param","code"}}`. Its forms answer so, and all
 * addresses that belong to no form: the tokenizer, the figures, whatever is not there.
 */
import type { ErrorAnswer, Refusal } from "./refusal.ts";

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

export function openAiError({ status, code, message, field }: Refusal): ErrorAnswer & { readonly body: ErrorBody } {
  return { status, body: { error: { message, type: typeOf(status), param: field ?? null, code } } };
}

function typeOf(status: number): string {
  if (status === 401) return "authentication_error";
  if (status === 403) return "permission_error";
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}
