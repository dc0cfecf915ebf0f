/** Prometheus' text format, read: `name{label="value"} 12` as numbers by name and labels. */

/** Samples that are finite numbers; what is no sample (comments, NaN, another format) is left out. */
export function parseMetrics(text: string): Record<string, number> {
  const figures: Record<string, number> = {};
  for (const line of text.split("\n")) {
    // Labels may hold blanks and braces within quotes; a time may stand after the value.
    const [, series, value] =
      /^\s*([A-Za-z_:][\w:]*(?:\{(?:[^"}]|"(?:\\.|[^"\\])*")*\})?)\s+(\S+)(?:\s+-?\d+)?\s*$/.exec(line) ?? [];
    const number = Number(value);
    if (series !== undefined && Number.isFinite(number)) figures[series] = number;
  }
  return figures;
}
