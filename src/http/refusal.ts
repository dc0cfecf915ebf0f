/**
 * Every way a request can fail, as an answer in OpenAI's shape: `{"error":{"message","type","param","code"}}`.
 *
 * The engine's refusals come as RepriseError, those of the HTTP part as RequestRefused. Anything else is a bug or a failure
 * that the client cannot mend: it is logged, and the answer is a 500 that names the request and nothing else.
 */
import { codeOf, describe, RepriseError, type ErrorCode } from "../errors.ts";
import type { Log } from "../log.ts";

/** A request that the HTTP part itself turns away. */
export class RequestRefused extends Error {
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

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: ErrorBody;
}

/** What a client is told about `error`. Logs what is not the client's doing. */
export function answerTo(error: unknown, context: { requestId: string; log: Log }): ErrorAnswer {
  if (error instanceof RequestRefused) {
    return answer(error.status, error.code, error.message, error.field, error.headers);
  }
  const known = error instanceof RepriseError ? engineAnswers[error.code] : undefined;
  if (error instanceof RepriseError && known !== undefined) {
    if (error.code === "ENGINE_FAILED") context.log.error(`request ${context.requestId}: ${describe(error)}`);
    return answer(known.status, known.code, error.message, error.field, known.headers ?? {});
  }
  const trace = error instanceof Error && error.stack !== undefined ? error.stack : String(error);
  context.log.error(`request ${context.requestId} (${codeOf(error) ?? "no code"}): ${trace}`);
  const message = `The server failed on this request; its log has the reason under ${context.requestId}.`;
  return answer(500, "internal_error", message, undefined, {});
}

/** The same as an HTTP response. */
export function toResponse(answered: ErrorAnswer): Response {
  return Response.json(answered.body, { status: answered.status, headers: answered.headers });
}

/** `Retry-After` in seconds: a model loads in tens of seconds, a place in the queue comes free in a few. */
const engineAnswers: Partial<
  Record<ErrorCode, { status: number; code: string; headers?: Readonly<Record<string, string>> }>
> = {
  BAD_REQUEST: { status: 400, code: "invalid_value" },
  PROMPT_TOO_LONG: { status: 413, code: "context_length_exceeded" },
  NOT_ENOUGH_MEMORY: { status: 507, code: "not_enough_memory" },
  QUEUE_FULL: { status: 429, code: "queue_full", headers: { "retry-after": "2" } },
  ENGINE_LOADING: { status: 503, code: "engine_loading", headers: { "retry-after": "5" } },
  ENGINE_FAILED: { status: 503, code: "engine_failed", headers: { "retry-after": "10" } },
  CANCELLED: { status: 503, code: "cancelled", headers: { "retry-after": "5" } },
};

function answer(
  status: number,
  code: string,
  message: string,
  field: string | undefined,
  headers: Readonly<Record<string, string>>,
): ErrorAnswer {
  return { status, headers, body: { error: { message, type: typeOf(status), param: field ?? null, code } } };
}

function typeOf(status: number): string {
  if (status === 401) return "authentication_error";
  if (status === 403) return "permission_error";
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}
