// Fetches the public chat templates that our renderer is tested with: those that llama.cpp keeps, out of the git bundle in the
// npm package node-llama-cpp, pinned by version and digest. They belong to others, so they are kept in .cache/ and not here.
//
//   node scripts/template-corpus.mjs      fetches them once (npm, 36 MB); later calls need no network
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const target = join(root, ".cache", "chat-templates");
const name = "node-llama-cpp-3.22.1";
const sha512 = "bltIipuWmc123H7tMIgDGKSsSrhmhlQYeVUC48XTjVW7XGJJiJJyCdlTMzQ/LiWoPkGDpcL4FviDpgw7qfTiDw==";

if (!existsSync(target)) {
  mkdirSync(dirname(target), { recursive: true });
  const scratch = mkdtempSync(`${target}-`);
  try {
    run("npm", ["pack", "node-llama-cpp@3.22.1", "--silent", "--pack-destination", scratch]);
    const archive = join(scratch, `${name}.tgz`);
    const digest = createHash("sha512").update(readFileSync(archive)).digest("base64");
    if (digest !== sha512) throw new Error(`${name}.tgz has the digest ${digest}, not ${sha512}`);
    run("tar", ["-xzf", archive, "-C", scratch, "package/llama/gitRelease.bundle"]);
    run("git", ["clone", "--quiet", "--bare", join(scratch, "package/llama/gitRelease.bundle"), join(scratch, "git")]);
    run("git", [
      "--git-dir",
      join(scratch, "git"),
      "archive",
      "-o",
      join(scratch, "templates.tar"),
      "HEAD",
      "models/templates",
    ]);
    run("tar", ["-xf", join(scratch, "templates.tar"), "-C", scratch]);
    renameSync(join(scratch, "models", "templates"), target);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
process.stdout.write(
  `${readdirSync(target).filter((file) => file.endsWith(".jinja")).length} templates in ${target}\n`,
);

function run(program, args) {
  const done = spawnSync(program, args, { encoding: "utf8" });
  if (done.status !== 0) throw new Error(`${program} ${args[0]} failed: ${done.error?.message ?? done.stderr}`);
}
