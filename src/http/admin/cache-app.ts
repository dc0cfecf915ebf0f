/** HTTP of the cache alone: is it well, what does it hold, its figures. The same rules of access as the whole server's. */
import { Registry } from "prom-client";
import type { FigureSource } from "../../figures.ts";
import type { Log } from "../../log.ts";
import { Access } from "../access.ts";
import { guardFigures } from "./admin-guard.ts";
import { showFigures } from "../metrics/cache-metrics.ts";
import { type App, createShell } from "../shell.ts";

export interface CacheAppOptions {
  /** What `/cache/stats` answers. */
  readonly cacheStats: () => unknown;
  /** What `/metrics` shows. */
  readonly cacheFigures: readonly FigureSource[];
  /** None: whoever reaches the listener may read. */
  readonly adminKeys: readonly string[];
  /** Whoever reaches the listener may read `/metrics`, whatever keys there are. */
  readonly openMetrics?: boolean;
  readonly log: Log;
  /** See {@link ShellOptions}. */
  readonly allowedHosts?: readonly string[];
}

export function createCacheApp(options: CacheAppOptions): App {
  const { adminKeys, cacheStats } = options;
  const registry = new Registry();
  const copyFigures = showFigures(registry, options.cacheFigures);
  // No salt is ever made here: engines bring their own, and a key is for reading figures.
  const access = new Access({ apiKeys: [], adminKeys, serverSecret: "" });
  const app = createShell({ ...options, access, guarded: [] });
  guardFigures(app, access, options);

  app.get("/health", (c) => c.json({ status: "ok" }));
  app.get("/cache/stats", (c) => c.json(cacheStats() ?? {}));
  app.get("/metrics", async (c) => {
    copyFigures();
    return c.body(await registry.metrics(), 200, { "content-type": registry.contentType });
  });
  return app;
}
