/**
 * The server as a process sees it that the server has started: whom it tells, whom it obeys, and with whom it ends.
 */
import { RepriseError, codeOf, describe, errorCodes } from "../../errors.ts";
import type { ErrorCode } from "../../errors.ts";

/** Why a process cannot do what it was started for; it ends. */
export interface Refused {
  readonly kind: "refused";
  readonly code: ErrorCode;
  readonly message: string;
}

/** An error as it travels. */
export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly field: string | undefined;
}

export function failureOf({ code, message, field }: RepriseError): Failure {
  return { code, message, field };
}

export function errorOf({ code, message, field }: Failure): RepriseError {
  return new RepriseError(code, message, field === undefined ? {} : { field });
}

export interface ServerChannel<To, From> {
  /** Tells the server. One that is gone ends this process by "disconnect"; what it was told last does not matter. */
  send(message: From): void;
  /** Says why this process is of no use, and ends it. */
  refuse(error: unknown): void;
  /** Hears the server from now on, until it is gone: then this process ends, at once. */
  listen(receive: (message: To) => void): void;
}

/** This process's end of the channel. Processes that nobody forked send to nobody. */
export function openServerChannel<To, From>(): ServerChannel<To, From | Refused> {
  return {
    send(message) {
      if (process.connected) process.send?.(message);
    },
    refuse(error) {
      const code = codeOf(error);
      const known = code !== undefined && code in errorCodes ? (code as ErrorCode) : "ENGINE_FAILED";
      const refused: Refused = { kind: "refused", code: known, message: describe(error) };
      process.send?.(refused, () => process.exit(1));
    },
    listen(receive) {
      process.on("disconnect", () => process.exit(0));
      // Ctrl-C goes to every process of the terminal; the server decides when this one ends.
      process.on("SIGINT", () => {});
      process.on("SIGTERM", () => {});
      process.on("message", receive);
    },
  };
}
