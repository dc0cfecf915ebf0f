/** What is done for a request, and when nobody wants it any more. */
import type { Context } from "hono";
import type { AppEnv } from "../app-env.ts";

/** Aborts when the client leaves, or the server closes and waits no longer. */
export function workOf(c: Context<AppEnv>): AbortController {
  const work = new AbortController();
  for (const signal of [c.req.raw.signal, c.env?.closing]) {
    if (signal?.aborted) work.abort();
    signal?.addEventListener("abort", () => work.abort(), { once: true });
  }
  return work;
}
