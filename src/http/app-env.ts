/** What the app's routes and middleware hand to each other, and the limits that they share. */
import type { HttpBindings } from "@hono/node-server";
import type { Tenant } from "./access.ts";
import type { BodyLimits } from "./read-json.ts";

export interface AppEnv {
  /** There behind `listen`; absent where a test calls the app without a socket. */
  Bindings: Partial<HttpBindings>;
  Variables: { requestId: string; tenant: Tenant };
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
};
