/** docs/terminal.md shows what the terminal shows today: what takes seconds is run again, and compared but for its figures. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { repositoryRoot } from "./support/repository.ts";

interface Scene {
  readonly sentence: string;
  readonly command?: string;
  readonly said: string;
}

test.runIf(process.platform === "linux")(
  "the page shows what a start, requests, mistakes, an end and inspect show",
  async () => {
    const { stdout } = await promisify(execFile)("node", ["scripts/terminal.mjs", "--quick"], { cwd: repositoryRoot });
    const scenes = stdout.trim().split("\n");
    const now = scenes.map((line) => shape(JSON.parse(line) as Scene)); // as terminal.mjs prints them
    const page = readFileSync(join(repositoryRoot, "docs", "terminal.md"), "utf8");
    const shown = [...page.matchAll(/(.+)\n\n```text\n(?:\$ (.+)\n)?([^`]*)\n```/g)].map(
      ([, sentence = "", command, said = ""]) =>
        shape({ sentence, ...(command === undefined ? {} : { command }), said }),
    );
    expect(now.length).toBeGreaterThan(10);
    expect(shown.slice(0, now.length), "run node scripts/terminal.mjs").toEqual(now);
  },
  240_000,
);

/** Without figures, names that are made up anew, the blanks that depend on them, and what an engine says when others take its processors. */
function shape({ said, ...scene }: Scene): Scene {
  const calm = said.replaceAll(/^[\d:]{8} (?:warn|info) +engine: .*cache.*$/gm, "");
  const even = calm.replaceAll(/\s/g, "").replaceAll(/(chatcmpl-|fp_)?\b[\da-f]{10,}\b/g, "ID");
  return { ...scene, said: even.replaceAll(/fp_\w+/g, "ID").replaceAll(/\d[\d.,:]*/g, "N") };
}
