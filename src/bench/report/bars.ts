/**
 * Stacked bars: where prompts' tokens came from, and how requests failed. Plain SVG, so that they are there before any
 * script runs and on paper.
 */
import { groupsOf } from "../metrics.ts";
import type { BenchResult, Sample } from "../result.ts";
import { escapeHtml } from "./html.ts";

/** A bar's parts by name, in a unit that all bars of a figure share. */
export interface Bar {
  readonly name: string;
  readonly parts: ReadonlyMap<string, number>;
}

/** Prompt tokens by source, one bar per target and group; none where servers do not tell. */
export function reuseBars({ targets, samples }: BenchResult): Bar[] {
  return targets.flatMap(({ label }) => {
    const ofTarget = samples.filter(({ target }) => target === label);
    return groupsOf(ofTarget).flatMap((group) => {
      const parts = tokensBySource(ofTarget.filter((sample) => sample.group === group));
      const total = [...parts.values()].reduce((sum, tokens) => sum + tokens, 0);
      if (total === 0) return [];
      return [
        { name: `${label}, ${group}`, parts: new Map([...parts].map(([name, tokens]) => [name, tokens / total])) },
      ];
    });
  });
}

/** Failed and wrong requests by kind, one bar per target. */
export function errorBars({ targets, samples }: BenchResult): Bar[] {
  return targets.map(({ label }) => {
    const parts = new Map<string, number>();
    for (const { target, outcome } of samples) {
      if (target === label && outcome !== "ok") parts.set(outcome, (parts.get(outcome) ?? 0) + 1);
    }
    return { name: label, parts };
  });
}

/**
 * @param options.full the sum that fills a bar's width.
 * @param options.text a part's number as text.
 * @param options.grey the part that is not coloured, and comes last.
 */
export function barFigure(
  bars: readonly Bar[],
  options: { readonly full: number; readonly text: (value: number) => string; readonly grey?: string },
): string {
  const { full, text, grey } = options;
  const names = [...new Set(bars.flatMap(({ parts }) => [...parts.keys()]))].toSorted(
    (a, b) => Number(a === grey) - Number(b === grey) || (a < b ? -1 : 1),
  );
  const classOf = (name: string) => {
    if (name === grey) return "part-rest";
    return tiersOfPage.has(name) ? `part-${name}` : `part-${names.indexOf(name) % partColours}`;
  };
  const legend = names.map(
    (name) =>
      `<li><svg class="key" aria-hidden="true"><rect class="${classOf(name)}" width="100%" height="100%"/></svg>${escapeHtml(name)}</li>`,
  );

  const rows = bars.map(({ name, parts }) => {
    const shown = names.filter((part) => (parts.get(part) ?? 0) > 0);
    const words = shown.map((part) => `${part} ${text(parts.get(part) ?? 0)}`).join(", ") || "none";
    let left = 0;
    const rects = shown.map((part) => {
      const width = ((parts.get(part) ?? 0) / full) * 100;
      left += width;
      const title = escapeHtml(`${part}: ${text(parts.get(part) ?? 0)}`);
      return `<rect class="${classOf(part)}" x="${(left - width).toFixed(3)}%" width="${width.toFixed(3)}%" height="100%"><title>${title}</title></rect>`;
    });
    const label = escapeHtml(`${name}: ${words}`);
    return `<div class="bar-row"><span class="bar-name">${escapeHtml(name)}</span><svg class="bar" role="img" aria-label="${label}">${rects.join("")}</svg><span class="bar-words">${escapeHtml(words)}</span></div>`;
  });
  return `<ul class="keys">${legend.join("")}</ul>\n<div class="bars">\n${rows.join("\n")}\n</div>`;
}

export const computedPart = "computed";

/** Those that have the colours that the server's page gives them. */
const tiersOfPage = new Set(["resident", "memory", "disk"]);

/** As many `part-N` colours as report.css has. */
const partColours = 6;

/** Tiers as the server names them; "reused" is what it reuses without saying from where. */
function tokensBySource(samples: readonly Sample[]): Map<string, number> {
  const parts = new Map<string, number>();
  const add = (name: string, tokens: number) => {
    if (tokens > 0) parts.set(name, (parts.get(name) ?? 0) + tokens);
  };
  for (const { promptTokens, cachedTokens, reused } of samples) {
    if (promptTokens === undefined || cachedTokens === undefined) continue;
    const tiers = Object.entries(reused ?? {});
    const told = tiers.reduce((sum, [, tokens]) => sum + tokens, 0);
    for (const [tier, tokens] of tiers) add(tier, tokens);
    add("reused", cachedTokens - told);
    add(computedPart, promptTokens - Math.max(cachedTokens, told));
  }
  return parts;
}
