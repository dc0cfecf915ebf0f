/** `reprise inspect`: what a data directory holds, whether a cache runs on it, and how its shared tiers are. Changes nothing. */
import { resolve } from "node:path";
import { textTable } from "../bench/text-table.ts";
import { formatBytes } from "../bytes.ts";
import { inspectDisk, type DiskContents, type SpaceOnDisk } from "../tiers/disk/inspect.ts";
import { CacheControl } from "../wire/guest/control.ts";
import { createLog } from "../log.ts";
import { diskDirectories, socketPathOf } from "./cache-host.ts";
import { mustBeThere } from "./data-directory.ts";
import type { Command } from "./command.ts";
import { readModelNames } from "./model-names.ts";
import { age, runningTiers } from "./running-tiers.ts";

type Running = { readonly [figure: string]: unknown } | undefined;

export const inspect: Command = {
  name: "inspect",
  summary: "shows what a data directory holds, whether or not a server runs on it",
  operands: ["[DATA_DIR]"],
  options: { json: { value: undefined, help: "Print JSON." } },
  settings: ["dataDir", "disk", "socket", "logLevel"],

  async run({ config, operands, own }) {
    const dataDir = resolve(operands[0] ?? config.dataDir);
    mustBeThere(dataDir);
    const running = await statsOf(socketPathOf({ dataDir, socket: config.socket }));
    const stored = await inspectDisk(diskDirectories({ dataDir, disk: config.disk }));
    const names = readModelNames(dataDir, createLog({ level: config.logLevel }));
    const spaces = stored.spaces.map((space) => ({ model: names.get(space.space) ?? null, ...space }));
    const disk = { ...stored, spaces };
    process.stdout.write(
      own["json"] === undefined
        ? page(dataDir, running, disk, Date.now())
        : `${JSON.stringify({ dataDir, running: running ?? null, disk }, undefined, 2)}\n`,
    );
    return 0;
  },
};

/** The figures of the cache that listens there. */
async function statsOf(socketPath: string): Promise<Running> {
  await using control = await CacheControl.connect(socketPath);
  return control?.stats();
}

/** What is stored of a space, and what people call its model; null: nobody has said. */
type NamedSpace = SpaceOnDisk & { readonly model: string | null };
type NamedContents = Omit<DiskContents, "spaces"> & { readonly spaces: readonly NamedSpace[] };

function rowOf(space: NamedSpace, nowMs: number): string[] {
  const { model, roots, parts, chunks, chunksHit, hits, tokens, payloadBytes, oldest, newest } = space;
  return [
    model ?? "?",
    space.space.slice(0, 12),
    ...[roots, parts, chunks, tokens, hits].map((figure) => figure.toLocaleString("en")),
    `${Math.round((100 * chunksHit) / chunks)} %`,
    formatBytes(payloadBytes),
    `${age((nowMs - oldest.getTime()) / 1000)} … ${age((nowMs - newest.getTime()) / 1000)}`,
  ];
}

function page(dataDir: string, running: Running, stored: NamedContents, nowMs: number): string {
  const { bytes, spaces, regions, hitsSavedAt } = stored;
  const rows = spaces.map((space) => rowOf(space, nowMs));
  const table =
    rows.length === 0
      ? "No records.\n"
      : textTable(
          ["model", "space", "roots", "parts", "chunks", "tokens", "hits", "ever hit", "KV", "written … ago"],
          rows,
          2,
        );
  const damaged = regions.reduce((sum, region) => sum + region.damaged, 0);
  const foreign = regions.filter(({ state }) => state === "foreign").length;
  const counted =
    running === undefined
      ? ""
      : hitsSavedAt === undefined
        ? "Hits are counted a minute late.\n"
        : `Hits were counted up to ${age((nowMs - hitsSavedAt.getTime()) / 1000)} ago.\n`;
  const troubles = [
    damaged === 0 ? "" : `${damaged} damaged records (each is a miss)\n`,
    foreign === 0 ? "" : `${foreign} files of another version (removed when room is needed)\n`,
    ...regions.map(({ path, problem }) => (problem === undefined ? "" : `${path} cannot be read: ${problem}\n`)),
  ].join("");
  const shared = running === undefined ? "" : runningTiers(running);
  const files = regions.length === 1 ? "file" : "files";
  return `${dataDir}: ${formatBytes(bytes)} in ${regions.length} ${files}; ${describeRunning(running)}\n\n${table}${counted}${troubles}${shared === "" ? "" : `\n${shared}`}`;
}

function describeRunning(running: Running): string {
  if (running === undefined) return "no cache runs here";
  const { sessions } = running;
  const memory = running["memory"] as { usedBytes: number; capacityBytes: number }; // as CacheStats has it
  return `a cache runs here: ${formatBytes(memory.usedBytes)} of ${formatBytes(memory.capacityBytes)} of memory in use, sessions: ${Number(sessions)}`;
}
