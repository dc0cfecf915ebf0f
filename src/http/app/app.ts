/** The HTTP surface as one function from Request to Response: most of its tests need no socket. */
import { fileURLToPath } from "node:url";
import type { Registry } from "prom-client";
import type { Engine } from "../../engine.ts";
import type { FigureSource } from "../../figures.ts";
import type { Log } from "../../log.ts";
import { Access } from "../access.ts";
import { answerRoutes } from "./answers.ts";
import { namedPromptRoutes, type TextKeeper } from "./named-prompts.ts";
import { adminRoutes } from "../admin/admin.ts";
import { guardFigures } from "../admin/admin-guard.ts";
import { cacheSizeRoutes, type ResizeMemory } from "../admin/cache-size.ts";
import { defaultLimits, type HttpLimits } from "../app-env.ts";
import { createMetrics } from "../metrics/metrics.ts";
import type { AnswerForm } from "../forms/form.ts";
import { openAiChat } from "../forms/openai-chat.ts";
import { openAiCompletions } from "../forms/openai-completions.ts";
import { createPage } from "../page.ts";
import { BodyReader } from "../read-json.ts";
import { type App, createShell } from "../shell.ts";

export interface AppOptions extends TextKeeper {
  readonly engine: Engine;
  /** What `/cache/stats` answers: anything that JSON can carry. */
  readonly cacheStats: () => unknown;
  /** What `/metrics` shows of the cache. */
  readonly cacheFigures: readonly FigureSource[];
  /** What `/cache/resize` does; the address is not there without it. */
  readonly resizeMemory?: ResizeMemory;
  /** Each is a tenant. None: whoever reaches the server may use it. */
  readonly apiKeys: readonly string[];
  /** For what concerns all tenants: `/metrics`, all of `/cache/stats`, `/cache/resize`. */
  readonly adminKeys?: readonly string[];
  /** Whoever reaches the server may read `/metrics`, whatever keys there are. */
  readonly openMetrics?: boolean;
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

/** The APIs in which answers are given. */
const forms: readonly AnswerForm[] = [openAiChat, openAiCompletions];

/** What asks for a key: all that reads or says something of texts. */
const guarded = ["/v1/*", "/models", "/models/*", "/tokenize", "/detokenize", ...forms.flatMap(({ paths }) => paths)];

export function createApp(options: AppOptions): App {
  const { engine, cacheStats, log, version } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const access = new Access(options);
  const bodies = new BodyReader(limits);
  const metrics = createMetrics({
    engine,
    cacheFigures: options.cacheFigures,
    ...(options.metricsRegistry && { registry: options.metricsRegistry }),
  });
  const page = createPage(options.pageDirectory ?? fileURLToPath(new URL("../../../dashboard/", import.meta.url)));

  const app = createShell({
    ...options,
    access,
    guarded,
    errorFormAt: (path) => forms.find(({ paths }) => paths.includes(path))?.error,
    onAnswered: (route, status) => metrics.requestAnswered(route, status),
  });
  guardFigures(app, access, options);
  app.route("/", answerRoutes(forms, { engine, access, bodies, metrics, log, limits, version }));
  app.route("/", adminRoutes({ engine, cacheStats, metrics, bodies, access }));
  app.route("/", namedPromptRoutes({ engine, bodies, access, pin: options.pin, prefetch: options.prefetch }));
  if (options.resizeMemory !== undefined)
    app.route("/", cacheSizeRoutes({ resize: options.resizeMemory, bodies, access }));
  // As middleware and not as a route: for a route, every path would be one that may be asked with GET.
  app.use(async (c, next) => {
    const asked = c.req.method === "GET" || c.req.method === "HEAD";
    const file = asked ? await page.answer(c.req.path, c.req.raw.headers) : undefined;
    if (file === undefined) await next();
    return file;
  });
  return app;
}
