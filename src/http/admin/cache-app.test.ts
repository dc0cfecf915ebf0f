import { expect, test } from "vitest";
import { figureSource } from "../../figures.ts";
import { silentLog } from "../../log.ts";
import { createCacheApp } from "./cache-app.ts";

const sessions = { name: "sessions", kind: "gauge", help: "-", read: () => 3 } as const;
const options = {
  cacheStats: () => ({ sessions: 3 }),
  cacheFigures: [figureSource([sessions], () => undefined)],
  log: silentLog,
};
const headers = { authorization: "Bearer for-the-admin" };

test("figures of the cache are for who has the admin key; health is for all", async () => {
  const app = createCacheApp({ ...options, adminKeys: ["for-the-admin"] });
  for (const path of ["/metrics", "/cache/stats"]) {
    expect((await app.request(path)).status).toBe(401);
    expect((await app.request(path, { headers: { authorization: "Bearer another-key" } })).status).toBe(401);
    expect(await (await app.request(path, { headers })).text()).toMatch(/sessions"?:? ?3/);
  }
  expect((await app.request("/health")).status).toBe(200);
});

test("/metrics alone can be opened; without keys all figures are open", async () => {
  const opened = createCacheApp({ ...options, adminKeys: ["for-the-admin"], openMetrics: true });
  expect((await opened.request("/metrics")).status).toBe(200);
  expect((await opened.request("/cache/stats")).status).toBe(401);
  const open = createCacheApp({ ...options, adminKeys: [] });
  for (const path of ["/metrics", "/cache/stats"]) expect((await open.request(path)).status).toBe(200);
});
