/** Dashboards and scripts know these names: one that changes or goes has to be meant. */
import { expect, test } from "vitest";
import { openTestCache } from "../../../test/support/cache.ts";
import { cacheFigures } from "../../cache/cache-stats.ts";
import { figureSource } from "../../figures.ts";
import { diskFigures } from "../../tiers/disk/disk-figures.ts";
import { silentLog } from "../../log.ts";
import { createCacheApp } from "../admin/cache-app.ts";
import { fakeApp } from "../app/fake-server.ts";
import { EventLoopDelay, processFigures } from "./event-loop-delay.ts";

async function typesOf(app: { request(path: string): Response | Promise<Response> }): Promise<string[]> {
  const text = await (await app.request("/metrics")).text();
  return text
    .split("\n")
    .filter((line) => line.startsWith("# TYPE "))
    .sort();
}

test("the names of all figures are as they were", async () => {
  await using cache = await openTestCache();
  const sources = [
    figureSource(cacheFigures, () => cache.stats()),
    figureSource(diskFigures, () => undefined),
    figureSource(processFigures, () => new EventLoopDelay(0)),
  ];
  const options = { cacheStats: () => cache.stats(), cacheFigures: sources, adminKeys: [], log: silentLog };
  const names = [
    "/metrics of reprise serve",
    ...(await typesOf(fakeApp({ cacheFigures: sources }).app)),
    "",
    "/metrics of reprise cache",
    ...(await typesOf(createCacheApp(options))),
    "",
    "/cache/stats",
    ...Object.keys(cache.stats()),
    "",
  ];
  await expect(names.join("\n")).toMatchFileSnapshot("../../../test/golden/figures.txt");
});
