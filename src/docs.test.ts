/** Pages that are made from tables in the code stay equal to them; `npx vitest run src/docs.test.ts -u` writes them anew. */
import { expect, test } from "vitest";
import { configurationDocs } from "./cli/help.ts";
import { errorCodes } from "./errors.ts";

test("docs/configuration.md is the table of settings", async () => {
  await expect(configurationDocs()).toMatchFileSnapshot("../docs/configuration.md");
});

test("docs/errors.md is the table of error codes", async () => {
  const rows = Object.entries(errorCodes).map(([code, meaning]) => `| \`${code}\` | ${meaning} |`);
  const page = [
    "# Errors",
    "",
    "Every failure that Reprise reports has a code; programs read the code, people the message. On the command line the exit",
    "code is 2 when the command was used wrongly (`BAD_CONFIG`) and 1 otherwise. Over HTTP see [http.md](http.md).",
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
