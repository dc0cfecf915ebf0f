/** The keys of what is not a tenant's own: figures, and orders to the whole cache. */
import type { Access } from "../access.ts";
import type { App } from "../shell.ts";

/**
 * Nothing under `/cache` or at `/metrics` is answered without a key where there are keys. What a tenant may see there its
 * route decides, from `caller`.
 */
export function guardFigures(app: App, access: Access, { openMetrics }: { openMetrics?: boolean }): void {
  app.use("/cache/*", async (c, next) => {
    c.set("caller", access.caller(c.req.raw.headers));
    await next();
  });
  if (openMetrics) return;
  app.use("/metrics", async (c, next) => {
    access.mustBeAdmin(access.caller(c.req.raw.headers));
    await next();
  });
}
