/** What the app's routes and middleware hand to each other, and the limits that they share. */
import type { HttpBindings } from "@hono/node-server";
import type { Context } from "hono";
import type { Caller, Tenant } from "./access.ts";
import type { BodyLimits } from "./read-json.ts";

export interface AppEnv {
  /** There behind `listen`; absent where a test calls the app without a socket. */
  Bindings: Partial<HttpBindings> & {
    /** Aborted when the server closes and waits for this answer no longer. */
    readonly closing?: AbortSignal;
  };
  /** `tenant` is there behind a key; `caller` under `/cache` and, unless they are open, for `/metrics`. */
  Variables: { requestId: string; tenant: Tenant; caller: Caller };
}

export interface HttpLimits extends BodyLimits {
  /** A stream that has nothing to say for this long sends a comment. */
  readonly keepAliveMs: number;
  /** A stream whose client reads nothing for this long is cut. */
  readonly stallMs: number;
}

export const defaultLimits: HttpLimits = {
  bodyBytes: 32 * 2 ** 20,
  allBodiesBytes: 256 * 2 ** 20,
  keepAliveMs: 10_000,
  stallMs: 60_000,
  slowBodyMs: 10_000,
};

/** Whose body it is that arrives: the tenant's, or where there are no keys that of the address it comes from. */
export function senderOf(c: Context<AppEnv>): string {
  const tenant = c.get("tenant");
  // Absent where a test calls the app without a socket.
  return tenant === undefined ? `at ${c.env?.incoming?.socket.remoteAddress ?? ""}` : `key ${tenant.key}`;
}
