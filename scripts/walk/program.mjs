// A page's blocks as files for /walk: a script for its terminals, and what each block runs.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { commandsOf } from "./blocks.mjs";

const here = dirname(fileURLToPath(import.meta.url));

const compilerOptions = {
  target: "es2022",
  lib: ["es2023", "esnext.disposable"],
  module: "nodenext",
  types: ["node"],
  strict: true,
};

/** Writes `blocks` of one page into `folder`; they begin in `directory`, below the home. Lines are the page's, so that faults name them. */
export function writeScript(folder, blocks, directory) {
  const calls = blocks.flatMap((block) => {
    writeFileSync(join(folder, `${block.line}.sh`), shell(folder, block));
    const walked = block.until === undefined ? `walk ${block.line}` : `serve ${block.line} ${quoted(block.until)}`;
    return block.beside ? [`beside_server ${block.line}`, walked] : [walked];
  });
  copyFileSync(join(here, "terminals.sh"), join(folder, "terminals.sh"));
  writeFileSync(
    join(folder, "page.sh"),
    [". /walk/terminals.sh", `cd ~/${directory}`, ...calls, "end_server", "echo done >&3", ""].join("\n"),
  );
}

function quoted(text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

function shell(folder, block) {
  if (block.language === "python" || block.language === "ts") {
    writeProgram(join(folder, String(block.line)), block);
    return `${block.language === "ts" ? "run_typescript" : "run_python"} /walk/${block.line}\n`;
  }
  return `${"\n".repeat(block.line)}${commandsOf(block).join("\n")}\n`;
}

function writeProgram(folder, { language, line, lines, given }) {
  mkdirSync(folder);
  const isTypeScript = language === "ts";
  const imports = given === undefined ? "" : importOf(folder, given, isTypeScript);
  const text = `${imports}${"\n".repeat(line)}${lines.join("\n")}\n`;
  writeFileSync(join(folder, isTypeScript ? "block.mts" : "block.py"), text);
  if (isTypeScript) writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions }));
}

/** One line. */
function importOf(folder, given, isTypeScript) {
  const path = join(here, "given", given);
  copyFileSync(path, join(folder, `given${extname(given)}`));
  if (!isTypeScript) return "from given import *";
  const names = [...readFileSync(path, "utf8").matchAll(/^export (?:const|let|function) (\w+)/gm)].map(
    ([, name]) => name,
  );
  return `import { ${names.join(", ")} } from "./given.mjs";`;
}
