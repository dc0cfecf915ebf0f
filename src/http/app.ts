/**
 * The HTTP surface as one function from Request to Response: most of its tests need no socket.
 *
 *     request id → host → CORS → key → route → (body limit and parsing inside the route) → count
 *
 * The key comes before the body, so that a stranger cannot make the server read anything.
 */
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { Hono, type MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { methodNotAllowed } from "hono/method-not-allowed";
import type { Registry } from "prom-client";
import type { Engine } from "../engine.ts";
import type { Log } from "../log.ts";
import { Access, checkHost } from "./access.ts";
import { adminRoutes } from "./admin.ts";
import { cacheSizeRoutes, type ResizeMemory } from "./cache-size.ts";
import { defaultLimits, type AppEnv, type HttpLimits } from "./app-env.ts";
import { createMetrics } from "./metrics.ts";
import { openAiRoutes } from "./openai.ts";
import { createPage } from "./page.ts";
import { BodyReader } from "./read-json.ts";
import { answerTo, RequestRefused, toResponse } from "./refusal.ts";

export interface AppOptions {
  readonly engine: Engine;
  /** What `/cache/stats` answers: anything that JSON can carry. Its `tiers` (see metrics.ts) feed `/metrics`. */
  readonly cacheStats: () => unknown;
  /** What `/cache/resize` does; the address is not there without it. */
  readonly resizeMemory?: ResizeMemory;
  /** None: whoever reaches the server may use it. */
  readonly apiKeys: readonly string[];
  /** Keeps the tenants' salts secret; the same from start to start, or what they stored is lost to them. */
  readonly serverSecret: string | Uint8Array;
  readonly log: Log;
  readonly version: string;
  readonly limits?: Partial<HttpLimits>;
  /** Origins of web pages that may call this server; none by default. */
  readonly corsOrigins?: readonly string[];
  /** `Host` names answered to; undefined = any. Give `loopbackHosts` to a server on loopback without keys. */
  readonly allowedHosts?: readonly string[];
  /** For callers who add figures of their own to `/metrics`. */
  readonly metricsRegistry?: Registry;
  /** The folder of the page at `/`; by default the one that comes with Reprise. */
  readonly pageDirectory?: string;
}

export type App = Hono<AppEnv>;

/** The names under which a server on loopback is reached. */
export const loopbackHosts: readonly string[] = ["localhost", "127.0.0.1", "[::1]"];

export function createApp(options: AppOptions): App {
  const { engine, cacheStats, log, version } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const access = new Access(options);
  const bodies = new BodyReader(limits);
  const metrics = createMetrics({
    engine,
    cacheStats,
    ...(options.metricsRegistry && { registry: options.metricsRegistry }),
  });
  const page = createPage(options.pageDirectory ?? fileURLToPath(new URL("../../dashboard/", import.meta.url)));

  const app: App = new Hono<AppEnv>();
  app.use(async (c, next) => {
    c.set("requestId", requestIdFrom(c.req.header("x-request-id")));
    const started = performance.now();
    await next();
    c.header("x-request-id", c.get("requestId"));
    c.header("x-content-type-options", "nosniff");
    const known = app.routes.some(({ method, path }) => method !== "ALL" && path === c.req.path);
    // 499, as proxies write it: nobody was there any more to get the answer.
    const status = c.req.raw.signal.aborted ? 499 : c.res.status;
    metrics.requestAnswered(known ? c.req.path : "other", status);
    const took = (performance.now() - started).toFixed(1);
    log.debug(`${c.get("requestId")} ${c.req.method} ${c.req.path} ${status} after ${took} ms`);
  });
  if (options.allowedHosts !== undefined) app.use(hostCheck(options.allowedHosts));
  if (options.corsOrigins !== undefined && options.corsOrigins.length > 0) {
    app.use(cors({ origin: [...options.corsOrigins], exposeHeaders: ["x-request-id", "retry-after"], maxAge: 600 }));
  }
  for (const path of ["/v1/*", "/metrics", "/cache/*", "/tokenize", "/detokenize"]) {
    app.use(path, async (c, next) => {
      c.set("tenant", access.identify(c.req.raw.headers));
      await next();
    });
  }
  app.use(methodNotAllowed({ app, onMethodNotAllowed: (_, methods) => toResponse(wrongMethod(methods, log)) }));

  app.route("/", openAiRoutes({ engine, access, bodies, metrics, log, limits, version }));
  app.route("/", adminRoutes({ engine, cacheStats, metrics, bodies }));
  if (options.resizeMemory !== undefined) app.route("/", cacheSizeRoutes({ resize: options.resizeMemory, bodies }));
  // As middleware and not as a route: for a route, every path would be one that may be asked with GET.
  app.use(async (c, next) => {
    const asked = c.req.method === "GET" || c.req.method === "HEAD";
    const file = asked ? await page.answer(c.req.path, c.req.raw.headers) : undefined;
    if (file === undefined) await next();
    return file;
  });

  app.notFound((c) => {
    const refused = new RequestRefused(404, "not_found", `There is nothing at ${c.req.method} ${c.req.path}.`);
    return toResponse(answerTo(refused, { requestId: c.get("requestId"), log }));
  });
  app.onError((error, c) => toResponse(answerTo(error, { requestId: c.get("requestId"), log })));
  return app;
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

function wrongMethod(methods: readonly string[], log: Log) {
  const allow = methods.join(", ");
  const message = `This address answers to ${allow} only.`;
  const refused = new RequestRefused(405, "method_not_allowed", message, { headers: { allow } });
  return answerTo(refused, { requestId: "", log });
}
