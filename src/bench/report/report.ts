/**
 * The report of a benchmark run: one HTML file that opens anywhere, without a network and without trust. Scripts and
 * styles are inlined and allowed by their hashes alone; the data is JSON in an element that is never run.
 */
import { createHash } from "node:crypto";
import type { BenchResult } from "../result.ts";
import { type ReportAssets, readAssets } from "./assets.ts";
import { barFigure, computedPart, errorBars, reuseBars } from "./bars.ts";
import { escapeHtml, scriptJson } from "./html.ts";
import { plotsOf } from "./plots.ts";
import { errorTexts, factsTable, metricWords, summaryTable, targetsTable } from "./tables.ts";

/** @returns the whole file; the same result always gives the same text. */
export async function renderReport(result: BenchResult): Promise<string> {
  return page(result, await readAssets());
}

function page(result: BenchResult, assets: ReportAssets): string {
  const styles = [assets.chartStyle, assets.style];
  const scripts = [assets.chartLibrary, assets.script];
  const title = escapeHtml(`${result.bench}: ${result.targets.map(({ label }) => label).join(" and ")}`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${contentPolicy(scripts, styles)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} – reprise bench</title>
${styles.map((style) => `<style>${style}</style>`).join("\n")}
</head>
<body>
<header><p class="kind">reprise bench</p><h1>${title}</h1></header>
<main>
<section><h2>What was run</h2>${factsTable(result)}${targetsTable(result.targets)}</section>
<section><h2>Summary</h2><div class="numbers">${summaryTable(result)}</div>
<details><summary>What the words mean</summary>${metricWords()}</details></section>
<section><h2>Times</h2><div id="plots"><noscript>These charts need JavaScript; their numbers are in the summary.</noscript></div></section>
${reuseSection(result)}
${errorSection(result)}
</main>
<script type="application/json" id="data">${scriptJson(plotsOf(result))}</script>
${scripts.map((script) => `<script>${script}</script>`).join("\n")}
</body>
</html>
`;
}

function reuseSection(result: BenchResult): string {
  const bars = reuseBars(result);
  if (bars.length === 0) return "";
  const text = (share: number) => `${(share * 100).toFixed(1)}\u00a0%`;
  return `<section><h2>Where prompts came from</h2>
<p class="note">Share of the prompt's tokens by the tier that held them; the rest was computed.</p>
${barFigure(bars, { full: 1, text, grey: computedPart })}</section>`;
}

function errorSection(result: BenchResult): string {
  const bars = errorBars(result);
  const most = Math.max(...bars.map(({ parts }) => [...parts.values()].reduce((sum, count) => sum + count, 0)), 0);
  if (most === 0) {
    const checked = result.samples.filter((sample) => sample.checked).length;
    const right =
      checked === 0 ? "What was answered was not checked." : `All ${checked} answers that were checked were right.`;
    return `<section><h2>Errors</h2><p>None: every request was answered. ${right}</p></section>`;
  }
  return `<section><h2>Errors</h2>
<p class="note">Requests that failed or were answered wrongly, of ${result.samples.length} in all.</p>
${barFigure(bars, { full: most, text: String })}${errorTexts(result)}</section>`;
}

/** Nothing may be fetched, and nothing runs but what was written here. */
function contentPolicy(scripts: readonly string[], styles: readonly string[]): string {
  const hashes = (texts: readonly string[]) =>
    texts.map((text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`).join(" ");
  return `default-src 'none'; script-src ${hashes(scripts)}; style-src ${hashes(styles)}; base-uri 'none'; form-action 'none'`;
}
