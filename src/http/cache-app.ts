/** HTTP of the cache alone: is it well, what does it hold, its figures. The same rules of access as the whole server's. */
import { Registry } from "prom-client";
import type { Log } from "../log.ts";
import { Access } from "./access.ts";
import { cacheFigures } from "./cache-metrics.ts";
import { type App, createShell } from "./shell.ts";

export interface CacheAppOptions {
  /** What `/cache/stats` answers. */
  readonly cacheStats: () => unknown;
  /** None: whoever reaches the listener may read. */
  readonly apiKeys: readonly string[];
  readonly log: Log;
  /** See {@link ShellOptions}. */
  readonly allowedHosts?: readonly string[];
}

export function createCacheApp(options: CacheAppOptions): App {
  const { apiKeys, cacheStats } = options;
  const registry = new Registry();
  const copy = cacheFigures(registry);
  // No salt is ever made here: there are no tenants' texts in these answers.
  const access = new Access({ apiKeys, serverSecret: "" });
  const app = createShell({ ...options, access, guarded: ["/metrics", "/cache/*"] });

  app.get("/health", (c) => c.json({ status: "ok" }));
  app.get("/cache/stats", (c) => c.json(cacheStats() ?? {}));
  app.get("/metrics", async (c) => {
    copy(cacheStats());
    return c.body(await registry.metrics(), 200, { "content-type": registry.contentType });
  });
  return app;
}
