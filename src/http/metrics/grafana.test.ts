/** The board and the alert rules name figures that a server exports, and no others. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parse } from "yaml";

const read = (path: string) => readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8");

/** Every figure that a server exports: docs/http.md lists them, and tests hold it equal to what is exported. */
const exported = new Set(read("docs/http.md").match(/\breprise_\w+/g));

function figuresIn(expression: string): string[] {
  return (expression.match(/\breprise_\w+/g) ?? []).map((name) => name.replace(/_bucket$/, ""));
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
