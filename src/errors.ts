/**
 * Errors of Reprise, one table.
 *
 * Three kinds of trouble: a bug stops the process (`assert`), an expected refusal is a return value of the function that
 * refuses, and a failure of the world is a `RepriseError` with a code from the table below. Callers read the code, never
 * the text; the text says what was tried, on what, and what to do.
 */

/** Every code with what it means for whoever meets it. docs/errors.md is generated from this table. */
export const errorCodes = {
  BAD_CONFIG: "A flag, environment variable or configuration key has a value that cannot be used.",
  MODEL_NOT_FOUND: "The model file does not exist or cannot be read.",
  MODEL_INVALID: "The model file is not a GGUF, is damaged, or is of a kind that this engine cannot run.",
  LIBRARY_UNSUPPORTED:
    "The llama.cpp libraries are missing, are not the version that this release was written for, or cannot use the GPU that they must.",
  NOT_ENOUGH_MEMORY: "The memory or /dev/shm of this machine is too small for what was asked.",
  ADDRESS_IN_USE: "Another program listens on the port or socket.",
  DATA_DIRECTORY_IN_USE: "Another running server owns the data directory.",
  ENGINE_FAILED: "The engine process ended or could not be started.",
  ENGINE_LOADING: "The model is still being loaded.",
  QUEUE_FULL: "As many requests as are allowed are already waiting.",
  PROMPT_TOO_LONG: "The prompt has more tokens than the context holds.",
  TEXT_NOT_TOKENIZABLE: "The process that tokenizes texts ended, or ran out of time, on this text.",
  BAD_REQUEST: "The request has a field that cannot be used.",
  CANCELLED: "The client left, or the server is shutting down.",
  TIER_UNAVAILABLE: "A storage tier failed; the cache goes on without it.",
  RECORD_CORRUPT: "A stored record does not match its checksum; it is dropped and counts as a miss.",
  PROTOCOL: "A peer sent something that is not the wire protocol; it is disconnected.",
  TARGET_UNAVAILABLE: "A server that was to be measured could not be started, ended, or does not answer.",
  CACHE_UNAVAILABLE: "The cache process is gone or did not answer in time; the request is computed instead.",
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** A failure of the world around the program. */
export class RepriseError extends Error {
  readonly code: ErrorCode;
  /** The request field at fault, for errors that a client caused. */
  readonly field: string | undefined;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; field?: string } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = "RepriseError";
    this.code = code;
    this.field = options.field;
  }
}

/** Stops the process on a bug of ours: never use it on what a user, a peer or a disk may send. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`Bug: ${message}`);
}

/** The code of an error thrown by Node or by us, if it has one. */
export function codeOf(error: unknown): string | undefined {
  return typeof error === "object" && error !== null && "code" in error && typeof error.code === "string"
    ? error.code
    : undefined;
}

/** One line about any thrown value, causes included. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : describe(error.cause);
  return error.message.includes(cause) ? error.message : `${error.message} (${cause})`;
}
