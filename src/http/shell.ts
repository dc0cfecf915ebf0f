/**
 * What every request passes before its route, and what answers where there is none:
 *
 *     request id → host → CORS → are we closing? → key → route → (body limit and parsing inside the route) → count
 *
 * The key comes before the body, so that a stranger cannot make the server read anything.
 */
import { randomUUID } from "node:crypto";
import { Hono, type MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { methodNotAllowed } from "hono/method-not-allowed";
import { codeOf } from "../errors.ts";
import type { Log } from "../log.ts";
import { type Access, checkHost } from "./access.ts";
import type { AppEnv } from "./app-env.ts";
import { openAiError } from "./openai-error.ts";
import { type ErrorForm, refusalOf, RequestRefused, serverCloses, toResponse } from "./refusal.ts";

export type App = Hono<AppEnv>;

export interface ShellOptions {
  readonly access: Access;
  /** Paths that ask for a key when there are keys. */
  readonly guarded: readonly string[];
  readonly log: Log;
  /** Origins of web pages that may call this server, `*` for all; none by default. */
  readonly corsOrigins?: readonly string[] | undefined;
  /** `Host` names answered to; undefined = any. Give `loopbackHosts` to a server on loopback without keys. */
  readonly allowedHosts?: readonly string[] | undefined;
  /** How refusals are worded at a path; as OpenAI does unless given. */
  readonly errorFormAt?: ((path: string) => ErrorForm | undefined) | undefined;
  /** Told of every answer; `route` is "other" where nothing is. */
  readonly onAnswered?: (route: string, status: number) => void;
}

/** The names under which a server on loopback is reached. */
export const loopbackHosts: readonly string[] = ["localhost", "127.0.0.1", "[::1]"];

/** An app without routes. */
export function createShell(options: ShellOptions): App {
  const { access, log } = options;
  const app: App = new Hono<AppEnv>();
  const refuse = (path: string, error: unknown, requestId: string) =>
    toResponse(refusalOf(error, { requestId, log }), options.errorFormAt?.(path) ?? openAiError);
  app.use(async (c, next) => {
    c.set("requestId", requestIdFrom(c.req.header("x-request-id")));
    const started = performance.now();
    await next();
    c.header("x-request-id", c.get("requestId"));
    c.header("x-content-type-options", "nosniff");
    const known = app.routes.some(({ method, path }) => method !== "ALL" && path === c.req.path);
    // 499, as proxies write it: nobody was there any more to get the answer.
    const status = c.req.raw.signal.aborted ? 499 : c.res.status;
    options.onAnswered?.(known ? c.req.path : "other", status);
    const took = (performance.now() - started).toFixed(1);
    log.debug(`${c.get("requestId")} ${c.req.method} ${c.req.path} ${status} after ${took} ms`);
  });
  if (options.allowedHosts !== undefined) app.use(hostCheck(options.allowedHosts));
  if (options.corsOrigins !== undefined && options.corsOrigins.length > 0) {
    const origin = options.corsOrigins.includes("*") ? "*" : [...options.corsOrigins];
    app.use(cors({ origin, exposeHeaders: ["x-request-id", "retry-after"], maxAge: 600 }));
  }
  app.use(async (c, next) => {
    const closing = c.env?.closing;
    await (closing === undefined ? next() : Promise.race([refusedAt(closing), next()]));
  });
  for (const path of options.guarded) {
    app.use(path, async (c, next) => {
      c.set("tenant", access.identify(c.req.raw.headers));
      await next();
    });
  }
  app.use(
    methodNotAllowed({
      app,
      onMethodNotAllowed: (c, methods) => refuse(c.req.path, wrongMethod(methods), c.get("requestId")),
    }),
  );
  app.notFound((c) => {
    const refused = new RequestRefused(
      404,
      "not_found",
      `There is nothing at ${c.req.method} ${c.req.path}; this server speaks OpenAI's API, at /v1.`,
    );
    return refuse(c.req.path, refused, c.get("requestId"));
  });
  app.onError((error, c) => {
    // Whoever worked on the answer knows only that it is not wanted any more; why, we know.
    const told = c.env?.closing?.aborted === true && codeOf(error) === "CANCELLED" ? serverCloses() : error;
    return refuse(c.req.path, told, c.get("requestId"));
  });
  return app;
}

/** Never resolves. @throws RepriseError CANCELLED when the server closes before there is an answer. */
function refusedAt(closing: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (closing.aborted) reject(serverCloses());
    closing.addEventListener("abort", () => reject(serverCloses()), { once: true });
  });
}

function hostCheck(hosts: readonly string[]): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    checkHost(c.req.url, hosts);
    await next();
  };
}

/** The client's own id where it is a plain word, so that its log and ours agree; else a new one. */
function requestIdFrom(given: string | undefined): string {
  return given !== undefined && /^[\w.:-]{1,128}$/.test(given) ? given : randomUUID();
}

function wrongMethod(methods: readonly string[]): RequestRefused {
  const allow = methods.join(", ");
  const message = `This address answers to ${allow} only.`;
  return new RequestRefused(405, "method_not_allowed", message, { headers: { allow } });
}
