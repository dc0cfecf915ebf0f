/**
 * Every way a request can fail, as status, code, message and field; an API's form puts these into words of its own.
 *
 * The engine's refusals come as RepriseError, those of the HTTP part as RequestRefused. Anything else is a bug or a failure
 * that the client cannot mend: it is logged, and the answer is a 500 that names the request and nothing else.
 */
import { codeOf, describe, RepriseError, type ErrorCode } from "../errors.ts";
import type { Log } from "../log.ts";

/** A request that the HTTP part itself turns away. */
export class RequestRefused extends Error implements Refusal {
  readonly status: number;
  readonly code: string;
  readonly field: string | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    code: string,
    message: string,
    options: { field?: string; headers?: Readonly<Record<string, string>> } = {},
  ) {
    super(message);
    this.name = "RequestRefused";
    this.status = status;
    this.code = code;
    this.field = options.field;
    this.headers = options.headers ?? {};
  }
}

/** What a client is told, before it is put into the words of its API. */
export interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly field?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

/** A refusal in the words of an API. */
export interface ErrorAnswer {
  readonly status: number;
  readonly body: object;
}

export type ErrorForm = (refusal: Refusal) => ErrorAnswer;

/** What a client is told about `error`. Logs what is not the client's doing. */
export function refusalOf(error: unknown, context: { requestId: string; log: Log }): Refusal {
  if (error instanceof RequestRefused) return error;
  const known = error instanceof RepriseError ? engineRefusals[error.code] : undefined;
  if (error instanceof RepriseError && known !== undefined) {
    if (error.code === "ENGINE_FAILED") context.log.error(`request ${context.requestId}: ${describe(error)}`);
    return { ...known, message: error.message, field: error.field };
  }
  const trace = error instanceof Error && error.stack !== undefined ? error.stack : String(error);
  context.log.error(`request ${context.requestId} (${codeOf(error) ?? "no code"}): ${trace}`);
  const message = `The server failed on this request; its log has the reason under ${context.requestId}.`;
  return { status: 500, code: "internal_error", message };
}

/** What is told to whoever asks, or waits for an answer, when the server closes. */
export function serverCloses(): RepriseError {
  return new RepriseError("CANCELLED", "The server is shutting down; ask again in a few seconds.");
}

/** The refusal as an HTTP response, in the words of `form`. */
export function toResponse(refusal: Refusal, form: ErrorForm): Response {
  const { status, body } = form(refusal);
  return Response.json(body, { status, headers: refusal.headers ?? {} });
}

/** `Retry-After` in seconds: a model loads in tens of seconds, a place in the queue comes free in a few. */
const engineRefusals: Partial<Record<ErrorCode, Omit<Refusal, "message" | "field">>> = {
  BAD_REQUEST: { status: 400, code: "invalid_value" },
  // As OpenAI, vLLM and llama-server answer: clients shorten the prompt at a 400 with this code.
  PROMPT_TOO_LONG: { status: 400, code: "context_length_exceeded" },
  TEXT_NOT_TOKENIZABLE: { status: 422, code: "text_not_tokenizable" }, // final: clients repeat 408, 409, 429 and 5xx
  NOT_ENOUGH_MEMORY: { status: 507, code: "not_enough_memory" },
  QUEUE_FULL: { status: 429, code: "queue_full", headers: { "retry-after": "2" } },
  ENGINE_LOADING: { status: 503, code: "engine_loading", headers: { "retry-after": "5" } },
  ENGINE_FAILED: { status: 503, code: "engine_failed", headers: { "retry-after": "10" } },
  CANCELLED: { status: 503, code: "cancelled", headers: { "retry-after": "5" } },
};
