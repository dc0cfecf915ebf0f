/** `reprise models`: which models lie on this machine, as `--model` takes them. Changes nothing. */
import { homedir } from "node:os";
import { textTable } from "../bench/text-table.ts";
import { formatBytes } from "../bytes.ts";
import type { FoundModel } from "../models/found-model.ts";
import { modelsHere } from "./choose-model.ts";
import type { Command } from "./command.ts";

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

/** What others called their files must not steer the terminal. */
function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "?");
}

function page(found: readonly FoundModel[]): string {
  const rows = found.map(({ name, otherNames, architecture, bytes, source, path }) => [
    printable([name, ...otherNames].join(", ")),
    printable(architecture),
    source,
    printable(path.startsWith(`${homedir()}/`) ? `~${path.slice(homedir().length)}` : path),
    formatBytes(bytes),
  ]);
  const table = textTable(["name", "architecture", "from", "file", "size"], rows, 4);
  return `${table}\nreprise serve --model NAME uses one of them where it lies.\n`;
}
