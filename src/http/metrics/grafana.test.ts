/** The board and the alert rules name figures that a server exports, and no others. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { counting, openTestCache, save, slotBytes, testPool, testSpace, wait } from "../../../test/support/cache.ts";
import { SharedStore, SharedTier } from "../../../test/support/shared-tier.ts";
import { cacheFigures } from "../../cache/cache-stats.ts";
import { figureSource } from "../../figures.ts";
import { bareRoot } from "../../identity/keys.ts";
import { silentLog } from "../../log.ts";
import { createCacheApp } from "../admin/cache-app.ts";

const read = (path: string) => readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8");

/** Every figure that a server exports: docs/http.md lists them, and tests hold it equal to what is exported. */
const exported = new Set(read("docs/http.md").match(/\breprise_\w+/g));

function figuresIn(expression: string): string[] {
  return (expression.match(/\breprise_\w+/g) ?? []).map((name) => name.replace(/_bucket$/, ""));
}

/** `/metrics` of a cache that has found a text in a shared tier: lines such as `name{tier="shared"} 1`. */
async function metricsOfSharedTier(): Promise<string[]> {
  const store = new SharedStore();
  const options = { space: testSpace(), rank: 0, slotBytes: [slotBytes] };
  {
    const pool = testPool();
    await using first = await openTestCache({ pool, tiers: [new SharedTier(store)] });
    await save(first.openSession(options), pool, counting(40));
    await first.flush();
  }
  const tier = new SharedTier(store);
  const stats = tier.stats.bind(tier);
  tier.stats = () => ({ ...stats(), quota: { limitBytes: 100, usedBytes: 1 } });
  await using cache = await openTestCache({ tiers: [tier] });
  await cache.openSession(options).lookup(bareRoot, counting(40), wait);
  const sources = [figureSource(cacheFigures, () => cache.stats())];
  const app = createCacheApp({ cacheStats: () => {}, cacheFigures: sources, adminKeys: [], log: silentLog });
  return (await (await app.request("/metrics")).text()).split("\n");
}

/** What of these lines a selector such as `name{tier!="disk",state="away"}` chooses; who scrapes adds `job` and `instance`. */
function chosen(selector: string, lines: readonly string[]): readonly string[] {
  const [, name, inside = ""] = /^(\w+)(?:\{(.*)\})?$/.exec(selector)!; // they look like that
  const wanted = [...inside.matchAll(/(\w+)(=~|!~|!=|=)"([^"]*)"/g)].filter(
    ([, label]) => !/job|instance/.test(label!),
  ); // the pattern has it
  return lines.filter((line) => {
    const [, found, labels = ""] = /^(\w+)(?:\{(.*)\})? \S+$/.exec(line) ?? [];
    const values = new Map([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, value]) => [label, value]));
    return (
      found === name &&
      wanted.every(([, label, sign, text]) => {
        const value = values.get(label) ?? "";
        const isIt = sign!.includes("~") ? new RegExp(`^(?:${text})$`).test(value) : value === text; // the pattern has it
        return values.has(label) && isIt !== sign!.startsWith("!");
      })
    );
  });
}

interface Board {
  readonly panels: readonly { readonly title: string; readonly targets?: readonly { readonly expr: string }[] }[];
}

test("every panel of the board shows figures that there are", () => {
  const { panels } = JSON.parse(read("grafana/reprise.json")) as Board;
  const shown = panels.filter(({ targets }) => targets !== undefined);
  expect(shown.length).toBeGreaterThan(10);
  for (const { title, targets = [] } of shown)
    for (const { expr } of targets) {
      expect(figuresIn(expr), title).not.toEqual([]);
      for (const figure of figuresIn(expr)) expect(exported, `${title}: ${figure}`).toContain(figure);
    }
});

test("every alert is about figures that there are, and docs/monitoring.md says what to do", () => {
  const { groups } = parse(read("grafana/alerts.yaml")) as {
    groups: readonly { readonly rules: readonly { readonly alert: string; readonly expr: string }[] }[];
  };
  const page = read("docs/monitoring.md");
  const rules = groups.flatMap(({ rules }) => rules);
  expect(rules.length).toBeGreaterThan(5);
  for (const { alert, expr } of rules) {
    for (const figure of figuresIn(expr)) expect(exported, alert).toContain(figure);
    expect(page).toContain(`| \`${alert}\` |`);
  }
});

test("what the board and the alerts choose of tiers by their labels is there, for a cache with a shared tier", async () => {
  const lines = await metricsOfSharedTier();
  const { panels } = JSON.parse(read("grafana/reprise.json")) as Board;
  const row = panels.findIndex(({ title }) => title === "Shared tiers");
  const expressions = panels.slice(row).flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
  const alerts = read("grafana/alerts.yaml").match(/(?<=expr: ).*reprise_tier_\w+.*$/gm) ?? [];
  expect([expressions.length, alerts.length]).toEqual([12, 3]);
  const selectors = [...expressions, ...alerts].flatMap((expr) => expr.match(/\breprise_\w+(?:\{[^}]*\})?/g) ?? []);
  expect(selectors.length).toBeGreaterThan(expressions.length);
  for (const selector of selectors) expect(chosen(selector, lines), selector).not.toEqual([]);
  expect(chosen('reprise_tier_state{state="gone"}', lines)).toEqual([]);
  expect(chosen('reprise_tier_state{tier!~"shared|disk",state="up"}', lines)).toEqual([]);
});
