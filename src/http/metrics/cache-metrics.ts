/** Shows figures that others keep to Prometheus, under `reprise serve` and `reprise cache` alike: copied when somebody asks. */
import { Counter, Gauge, type Registry } from "prom-client";
import type { FigureSource, Labels } from "../../figures.ts";

/** @returns copies what the sources say now into the registry. A figure without a label that says nothing is 0. */
export function showFigures(registry: Registry, sources: readonly FigureSource[]): () => void {
  const shown = new Map(
    sources
      .flatMap(({ figures }) => figures)
      .map(({ name, kind, help, label }) => {
        const labelNames = label === undefined ? [] : [label].flat();
        const options = { name, help, labelNames, registers: [registry] };
        return [name, { labelNames, metric: kind === "counter" ? new Counter(options) : new Gauge(options) }];
      }),
  );
  const show = (figure: string, value: number, labels: Labels = []) => {
    // What a part says of itself must not break the page of figures.
    if (!Number.isFinite(value) || value < 0) return;
    const { labelNames, metric } = shown.get(figure)!; // sources visit the figures that they name
    const values = [labels].flat();
    metric.inc(Object.fromEntries(labelNames.map((name, i) => [name, values[i] ?? ""])), value);
  };
  return () => {
    for (const { metric } of shown.values()) metric.reset();
    for (const source of sources) source.visit(show);
  };
}
