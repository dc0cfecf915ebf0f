/** Pages that are made from tables in the code stay equal to them; `npx vitest run src/docs.test.ts -u` writes them anew. */
import { expect, test } from "vitest";
import { ask, sampleNotes } from "./bench/notes/notes.ts";
import { configurationDocs } from "./cli/help.ts";
import { errorCodes } from "./errors.ts";

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

test("docs/errors.md is the table of error codes", async () => {
  const rows = Object.entries(errorCodes).map(([code, meaning]) => `| \`${code}\` | ${meaning} |`);
  const page = [
    "# Errors",
    "",
    "Every failure that Reprise reports has a code; programs read the code, people the message. On the command line the exit",
    "code is 2 when the command was used wrongly (`BAD_CONFIG`), 3 when another server has the data directory already",
    "(`DATA_DIRECTORY_IN_USE`), and 1 otherwise. Over HTTP see [http.md](http.md).",
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
