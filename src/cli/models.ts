/** `reprise models`: which models lie on this machine, as `--model` takes them. Changes nothing. */
import { textTable } from "../bench/text-table.ts";
import { formatBytes } from "../bytes.ts";
import { home } from "../config/kinds.ts";
import type { FoundModel } from "../models/found-model.ts";
import { printable } from "../printable.ts";
import { modelsHere } from "./choose-model.ts";
import type { Command } from "./command.ts";

const mostRows = 200;

export const models: Command = {
  name: "models",
  summary: "lists the models on this machine that --model takes by name; downloads nothing",
  options: { json: { value: undefined, help: "Print JSON." } },
  settings: ["modelsDir"],

  async run({ config, own }) {
    const found = await modelsHere(config);
    process.stdout.write(own["json"] === undefined ? page(found) : `${JSON.stringify(found, undefined, 2)}\n`);
    return 0;
  },
};

function page(found: readonly FoundModel[]): string {
  const rows = found
    .slice(0, mostRows)
    .map(({ name, otherNames, architecture, bytes, source, path }) => [
      printable([name, ...otherNames].join(", ")),
      printable(architecture),
      source,
      printable(path.startsWith(`${home()}/`) ? `~${path.slice(home().length)}` : path),
      formatBytes(bytes),
    ]);
  const table = textTable(["name", "architecture", "from", "file", "size"], rows, 4);
  const more = found.length > mostRows ? `and ${found.length - mostRows} more: --json lists all\n` : "";
  return `${table}${more}\nreprise serve --model NAME uses one of them where it lies.\n`;
}
