import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { tierNames, tierNumbers, tierTable, whereIs } from "./tier.ts";

test("every tier has a number of its own, and keeps it", () => {
  expect(tierNumbers()).toMatchObject({ resident: 0, memory: 1, disk: 2 });
  expect(new Set(Object.values(tierNumbers())).size).toBe(tierNames.length);
});

test("Python and the dashboard name the same tiers", () => {
  const table = /^TIER_NAMES: Final = \{(.*)\}$/m.exec(readFileSync("python/reprise/rows.py", "utf8"))?.[1];
  const inPython = Array.from(table?.matchAll(/(\d+): "(\w+)"/g) ?? [], ([, number, name]) => [name, Number(number)]);
  expect(inPython).toEqual(tierNames.map((name) => [name, tierTable[name].number]));
  const sources = /^const sources = \["computed", (.*)\];$/m.exec(readFileSync("dashboard/prompt-bar.js", "utf8"))?.[1];
  expect(sources).toBe(tierNames.map((name) => `"${name}"`).join(", "));
});

test("a tier that only a newer cache knows is told by its name", () => {
  expect([whereIs("disk"), whereIs("drum")]).toEqual(["on disk", "in drum"]);
});
