/** What the report inlines: our own script and style, and those of uPlot (MIT), a chart library of 50 kB. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { assert } from "../../errors.ts";

export interface ReportAssets {
  readonly chartLibrary: string;
  readonly chartStyle: string;
  readonly script: string;
  readonly style: string;
}

/** Reads them from the installed packages. @throws where Node finds no uplot: the installation is not whole. */
export async function readAssets(): Promise<ReportAssets> {
  const uPlot = dirname(createRequire(import.meta.url).resolve("uplot/package.json"));
  const own = fileURLToPath(new URL("../../../dashboard/report/", import.meta.url)); // as far from src/ as from dist/
  const [licence, library, chartStyle, script, style] = await Promise.all([
    readFile(join(uPlot, "LICENSE"), "utf8"),
    readFile(join(uPlot, "dist", "uPlot.iife.min.js"), "utf8"),
    readFile(join(uPlot, "dist", "uPlot.min.css"), "utf8"),
    readFile(join(own, "charts.js"), "utf8"),
    readFile(join(own, "report.css"), "utf8"),
  ]);
  const chartLibrary = `/*!\n${licence}*/\n${library}`; // who passes a report on passes uPlot on
  for (const text of [chartLibrary, chartStyle, script, style]) {
    // HTML parsers drop carriage returns, and the hash of the text would no longer be its hash.
    assert(!/<\/(?:script|style)|<!--|\r/i.test(text), "an inlined file would end its element");
  }
  return { chartLibrary, chartStyle, script, style };
}
