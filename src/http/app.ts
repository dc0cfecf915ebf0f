/** The HTTP surface as one function from Request to Response: most of its tests need no socket. */
import { fileURLToPath } from "node:url";
import type { Registry } from "prom-client";
import type { Engine } from "../engine.ts";
import type { Log } from "../log.ts";
import { Access } from "./access.ts";
import { adminRoutes } from "./admin.ts";
import { cacheSizeRoutes, type ResizeMemory } from "./cache-size.ts";
import { defaultLimits, type HttpLimits } from "./app-env.ts";
import { createMetrics } from "./metrics.ts";
import { openAiRoutes } from "./openai.ts";
import { createPage } from "./page.ts";
import { BodyReader } from "./read-json.ts";
import { type App, createShell } from "./shell.ts";

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

  const app = createShell({
    ...options,
    access,
    guarded: ["/v1/*", "/metrics", "/cache/*", "/tokenize", "/detokenize"],
    onAnswered: (route, status) => metrics.requestAnswered(route, status),
  });
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
  return app;
}
