/** Pages that are made from tables in the code stay equal to them; `npx vitest run src/docs.test.ts -u` writes them anew. */
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { expect, test } from "vitest";
import { folders } from "../test/support/floors.ts";
import { purposeOf, readPython, readSources } from "../test/support/sources.ts";
import { ask, sampleNotes } from "./bench/notes/notes.ts";
import { cacheFigures, levelTable } from "./cache/cache-stats.ts";
import { counterTable, rowsOf, type StatisticRow } from "./cache/counters.ts";
import { outcomes, tierCounterTable } from "./cache/tiering/tier-counters.ts";
import { configurationDocs } from "./cli/help.ts";
import { errorCodes } from "./errors.ts";
import type { FigureHead } from "./figures.ts";
import { engineFigures, schedulerFigures } from "./http/metrics/engine-figures.ts";
import { processFigures } from "./http/metrics/event-loop-delay.ts";
import { fieldDocs } from "./http/fields/docs.ts";
import { diskFigures } from "./tiers/disk/disk-figures.ts";

test("docs/configuration.md is the table of settings", async () => {
  await expect(configurationDocs()).toMatchFileSnapshot("../docs/configuration.md");
});

test("the page's example is notes that the shipped model can answer questions about", async () => {
  const { text, questions } = sampleNotes({ seed: 2026, characters: 6000 });
  const kinds = ["local", "spill", "alias", "override"] as const;
  const asked = kinds.flatMap((kind) => questions.find((question) => question.kind === kind)?.question ?? []);
  const module = [
    "/** Notes and questions to try the page with; made by src/bench/notes, like those that the shipped model learned from. */",
    `export const notes = ${JSON.stringify(text)};`,
    `export const questions = ${JSON.stringify(asked.map((question) => `Question: ${question}`))};`,
    "",
  ].join("\n");
  await expect(module).toMatchFileSnapshot("../dashboard/example-notes.js");
});

test("the README's long prompt is notes and a question about one of them", async () => {
  const { text, questions } = sampleNotes({ seed: 4000, characters: 15_900 });
  const asked = questions.find(({ kind }) => kind === "spill")?.question ?? "";
  const request = { messages: [{ role: "user", content: ask(text, asked) }], temperature: 0, max_tokens: 32 };
  await expect(`${JSON.stringify(request)}\n`).toMatchFileSnapshot("../examples/long-prompt.json");
});

test("docs/http.md lists the fields of requests as the tables have them", async () => {
  await expect(between("fields", "../docs/http.md", fieldDocs())).toMatchFileSnapshot("../docs/http.md");
});

test("docs/http.md lists the figures as the tables have them", async () => {
  const parts: [string, readonly FigureHead[]][] = [
    ["engine", engineFigures],
    ["cache", cacheFigures],
    ["disk", diskFigures],
    ["process", processFigures],
    ["schedulers", schedulerFigures],
  ];
  const rows = parts.flatMap(([part, figures]) =>
    figures.map(({ name, label = [], help }) => `| \`${name}\` | ${inCode([label].flat())} | ${part} | ${help} |`),
  );
  const table = ["| Figure | By | Of | Meaning |", "|---|---|---|---|", ...rows, ""].join("\n");
  await expect(between("metrics", "../docs/http.md", table)).toMatchFileSnapshot("../docs/http.md");
});

test("docs/cache.md lists the statistics as the tables have them", async () => {
  const table = statisticDocs([...rowsOf(counterTable), ...rowsOf(levelTable)]);
  await expect(between("statistics", "../docs/cache.md", table)).toMatchFileSnapshot("../docs/cache.md");
});

test("docs/shared-tiers.md lists what is counted of each tier, and what its lookups may come to", async () => {
  const meanings = Object.entries(outcomes).map(([outcome, is]) => `| \`${outcome}\` | ${is} |`);
  const words = ["| `lookups` | |", "|---|---|", ...meanings, ""].join("\n");
  const text = `${statisticDocs(rowsOf(tierCounterTable))}\n${words}`;
  await expect(between("tier-figures", "../docs/shared-tiers.md", text)).toMatchFileSnapshot("../docs/shared-tiers.md");
});

function statisticDocs(statistics: readonly (readonly [name: string, row: StatisticRow])[]): string {
  const rows = statistics.map(
    ([name, { unit, by, help }]) => `| \`${name}\` | ${unit} | ${by === undefined ? "" : `\`${by}\``} | ${help} |`,
  );
  return ["| Statistic | Unit | By | Meaning |", "|---|---|---|---|", ...rows, ""].join("\n");
}

function inCode(words: readonly string[]): string {
  return words.map((word) => `\`${word}\``).join(", ");
}

test("ARCHITECTURE.md has a line for every file, by room, from the files' headers", async () => {
  const page = between("files", "../ARCHITECTURE.md", fileDocs());
  await expect(page).toMatchFileSnapshot("../ARCHITECTURE.md");
});

/** A page with `text` between its markers of that name. */
function between(name: string, page: string, text: string): string {
  const whole = readFileSync(new URL(page, import.meta.url), "utf8");
  const [before = "", rest = ""] = whole.split(new RegExp(`(?<=<!-- ${name}: begin -->\n)`));
  const [, after = ""] = rest.split(new RegExp(`(?=<!-- ${name}: end -->\n)`));
  expect(after, `${page} has markers`).not.toBe("");
  return `${before}\n${text}\n${after}`;
}

/** A heading for each folder, a line for each file in it; then Python's, where a folder's `__init__.py` says what it is. */
function fileDocs(): string {
  const sources = [...readSources()];
  const ofSources = Object.entries(folders).map(([folder, is]) => {
    const files = sources.filter(([path]) => dirname(path) === (folder === "" ? "." : folder));
    return folderDocs(`src/${folder === "" ? "" : `${folder}/`}`, `${is[0]!.toUpperCase()}${is.slice(1)}.`, files);
  });
  const modules = [...readPython()];
  const ofPython = modules.flatMap(([path, source]) => {
    if (basename(path) !== "__init__.py") return [];
    const files = modules.filter(([other]) => dirname(other) === dirname(path) && other !== path);
    return folderDocs(`python/${dirname(path)}/`, purposeOf(source) ?? "", files);
  });
  return [...ofSources, ...ofPython].join("\n\n");
}

function folderDocs(heading: string, is: string, files: readonly (readonly [path: string, source: string])[]): string {
  const lines = files.map(([path, source]) => `- \`${basename(path)}\`: ${purposeOf(source) ?? ""}`);
  return [`### ${heading}`, "", is, "", ...lines].join("\n").trimEnd();
}

test("docs/errors.md is the table of error codes", async () => {
  const rows = Object.entries(errorCodes).map(([code, meaning]) => `| \`${code}\` | ${meaning} |`);
  const page = [
    "# Errors",
    "",
    "Every failure that Reprise reports has a code. Programs should read the code; the message is for people. On the command line",
    "the exit code is 2 when the command was used wrongly (`BAD_CONFIG`), 3 when another server already has the data directory",
    "(`DATA_DIRECTORY_IN_USE`), and 1 otherwise. For HTTP see [http.md](http.md#errors).",
    "",
    "| code | meaning |",
    "| --- | --- |",
    ...rows,
    "",
    "This page is generated from `src/errors.ts`; a test keeps them equal.",
    "",
  ].join("\n");
  await expect(page).toMatchFileSnapshot("../docs/errors.md");
});
