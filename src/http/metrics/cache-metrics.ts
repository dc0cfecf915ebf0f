/** Shows figures that others keep to Prometheus, under `reprise serve` and `reprise cache` alike: copied when somebody asks. */
import { Counter, Gauge, type Registry } from "prom-client";
import type { FigureSource } from "../../figures.ts";

/** @returns copies what the sources say now into the registry. A figure without a label that says nothing is 0. */
export function showFigures(registry: Registry, sources: readonly FigureSource[]): () => void {
  const shown = new Map(
    sources
      .flatMap(({ figures }) => figures)
      .map(({ name, kind, help, label }) => {
        const options = { name, help, labelNames: label === undefined ? [] : [label], registers: [registry] };
        return [name, { label, metric: kind === "counter" ? new Counter(options) : new Gauge(options) }];
      }),
  );
  const show = (figure: string, value: number, labelValue?: string) => {
    // What a part says of itself must not break the page of figures.
    if (!Number.isFinite(value) || value < 0) return;
    const { label, metric } = shown.get(figure)!; // sources visit the figures that they name
    if (label === undefined) metric.inc(value);
    else metric.inc({ [label]: labelValue ?? "" }, value);
  };
  return () => {
    for (const { metric } of shown.values()) metric.reset();
    for (const source of sources) source.visit(show);
  };
}
