// The fenced blocks of a page, and what the comment on the line before a fence says about walking it:
//
//     <!-- walked: in a clone, until "is ready" -->      <!-- not walked: needs a GPU -->
//     ```sh                                              ```sh
//     npm start                                          vllm serve …
//     ```                                                ```
//
// Without a comment a block is walked without a clone, as it is pasted. What `walked:` may say, with commas between:
//
//     in a clone             in a fresh clone of the repository, and not without one
//     in a clone and without in both
//     until "TEXT"           it stays: it runs in a terminal of its own until the page ends or the next of this kind begins, and
//                            the next block waits until it has said TEXT
//     beside a server        `reprise serve` runs meanwhile
//     given FILE             what a program takes as given is in scripts/walk/given/FILE
//
// `console` is what a terminal showed: lines that begin with "$ " are walked, the rest is what they said.
import { readFileSync } from "node:fs";

const walkedLanguages = ["sh", "bash", "console", "python", "ts"];
const otherLanguages = ["text", "json", "yaml"];

/** @returns blocks {page, line, language, lines, roots, until, beside, given, reason}, without those of other languages */
export function readBlocks(page) {
  const faults = [];
  const blocks = [];
  const lines = readFileSync(page, "utf8").split("\n");
  for (let at = 0; at < lines.length; at += 1) {
    const opening = /^```(.*)$/.exec(lines[at]);
    if (opening === null) {
      if (/^<!-- (not )?walked\b/.test(lines[at]) && !lines[at + 1]?.startsWith("```"))
        faults.push(`${page}:${at + 1}: no block begins on the next line`);
      if (/^\s+```|^\s*~~~/.test(lines[at]))
        faults.push(`${page}:${at + 1}: a fence is \`\`\` at the beginning of its line`);
      continue;
    }
    const end = lines.indexOf("```", at + 1);
    const language = opening[1].trim();
    if (end === -1) faults.push(`${page}:${at + 1}: this block does not end`);
    else if (walkedLanguages.includes(language)) {
      const block = { page, line: at + 1, language, lines: lines.slice(at + 1, end) };
      try {
        blocks.push({ ...block, ...readComment(lines[at - 1] ?? "") });
      } catch (error) {
        faults.push(`${page}:${at}: ${error.message}`);
      }
    } else if (!otherLanguages.includes(language))
      faults.push(
        `${page}:${at + 1}: say what this block is: ${walkedLanguages.join(", ")} (walked), ${otherLanguages.join(", ")}`,
      );
    if (end !== -1) at = end;
  }
  if (faults.length > 0) throw new Error(faults.join("\n"));
  return blocks;
}

function readComment(line) {
  const [, not, text] = /^<!-- (not )?walked: (.+) -->$/.exec(line) ?? [];
  const block = { roots: ["without a clone"], until: undefined, beside: false, given: undefined, reason: undefined };
  if (not !== undefined) return { ...block, roots: [], reason: text };
  if (text === undefined && /<!--.*walked/.test(line)) throw new Error(`not understood: ${line}`);
  for (const word of text?.split(", ") ?? []) {
    const [, until] = /^until "(.+)"$/.exec(word) ?? [];
    const [, given] = /^given (\S+)$/.exec(word) ?? [];
    if (word === "in a clone") block.roots = ["in a clone"];
    else if (word === "in a clone and without") block.roots = ["in a clone", "without a clone"];
    else if (word === "beside a server") block.beside = true;
    else if (until !== undefined) block.until = until;
    else if (given !== undefined) block.given = given;
    else throw new Error(`not understood: "${word}"`);
  }
  return block;
}

/** What a person pastes of a block, each line where the page has it. */
export function commandsOf({ language, lines }) {
  if (language !== "console") return lines;
  return lines.map((line) => /^[$>] (.*)$/.exec(line)?.[1] ?? "");
}
