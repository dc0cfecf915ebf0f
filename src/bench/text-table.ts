/** Tables for a terminal or a log: aligned columns, no lines, no colours. */
import Table from "cli-table3";

const noLines = Object.fromEntries(
  ["top", "top-mid", "top-left", "top-right", "bottom", "bottom-mid", "bottom-left", "bottom-right"]
    .concat(["left", "left-mid", "mid", "mid-mid", "right", "right-mid"])
    .map((part) => [part, ""]),
);

/** @param leftColumns how many of the first columns hold words; the others hold numbers and stand at the right. */
export function textTable(head: readonly string[], rows: readonly (readonly string[])[], leftColumns: number): string {
  const table = new Table({
    head: [...head],
    colAligns: head.map((_, column) => (column < leftColumns ? "left" : "right")),
    chars: { ...noLines, middle: "  " },
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [] },
  });
  table.push(...rows.map((row) => [...row]));
  const lines = table.toString().split("\n");
  return `${lines.map((line) => line.trimEnd()).join("\n")}\n`;
}
