// Makes a fresh clone ready, then runs a command: `node scripts/ready.mjs [--no-install] [-- COMMAND [ARGUMENT ...]]`.
// Installs from the lock file when the lock file changed and builds when a source changed; says nothing otherwise.
// No dependencies: it is the first thing that runs after `git clone`.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const installStamp = join(root, "node_modules", ".reprise-lock");
const buildStamp = join(root, "dist", ".reprise-sources");

requireNode([20, 19, 0]);
const before = process.argv.slice(2, commandAt());
if (!before.includes("--no-install"))
  whenChanged(installStamp, lockDigest(), "Installing dependencies (once)", npm("ci"));
whenChanged(
  buildStamp,
  sourceDigest(),
  "Building",
  // What runs, and no more: `npm run check` looks at the types, `npm run build` writes them for a package.
  [process.execPath, tsc(), "-p", "tsconfig.build.json", "--noCheck", "--declaration", "false"],
  join(root, "dist"),
);
run(process.argv.slice(commandAt() + 1));

/** Where "--" stands, or the end. */
function commandAt() {
  const at = process.argv.indexOf("--");
  return at === -1 ? process.argv.length : at;
}

function requireNode(wanted) {
  const have = process.versions.node.split(".").map(Number);
  const older = wanted.findIndex((part, index) => have[index] !== part);
  if (older === -1 || have[older] > wanted[older]) return;
  fail(`Reprise needs Node ${wanted.join(".")} or newer; this is ${process.versions.node}.`);
}

/** Runs `command` when the digest in `stamp` is not `digest`, and only then remembers it. */
function whenChanged(stamp, digest, title, command, removeFirst) {
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return;
  if (removeFirst) rmSync(removeFirst, { recursive: true, force: true });
  process.stderr.write(`${title} …\n`);
  const [program, ...args] = command;
  const done = spawnSync(program, args, { cwd: root, encoding: "utf8", env: { ...process.env, NODE_ENV: "" } });
  if (done.status !== 0)
    fail(`${title} failed: ${command.join(" ")}\n${done.stdout ?? ""}${done.stderr ?? ""}${done.error ?? ""}`);
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, digest);
}

function lockDigest() {
  const parts = ["package.json", "package-lock.json"].map((file) => readFileSync(join(root, file)));
  return createHash("sha256")
    .update(process.version)
    .update(process.platform)
    .update(process.arch)
    .update(Buffer.concat(parts))
    .digest("hex");
}

function sourceDigest() {
  const digest = createHash("sha256").update(lockDigest());
  for (const file of [
    ...sourceFiles(join(root, "src")),
    join(root, "tsconfig.json"),
    join(root, "tsconfig.build.json"),
  ]) {
    const { size, mtimeMs } = statSync(file);
    digest.update(`${file} ${size} ${mtimeMs}\n`);
  }
  return digest.digest("hex");
}

function sourceFiles(directory) {
  const entries = readdirSync(directory, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  return entries.flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return sourceFiles(path);
    return path.endsWith(".ts") && !path.endsWith(".test.ts") ? [path] : [];
  });
}

/** npm as it runs now when npm started us, else the one on the PATH. */
function npm(...args) {
  // No dependency's script is needed, and each could do anything (ARCHITECTURE.md, Dependencies).
  const flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const script = process.env.npm_execpath;
  return script?.endsWith(".js") ? [process.execPath, script, ...args, ...flags] : ["npm", ...args, ...flags];
}

function tsc() {
  return join(root, "node_modules", "typescript", "bin", "tsc");
}

function run([program, ...args]) {
  if (!program) return;
  const path = `${join(root, "node_modules", ".bin")}:${process.env.PATH}`;
  const child = spawn(program === "node" ? process.execPath : program, args, {
    stdio: "inherit",
    cwd: root,
    env: { ...process.env, PATH: path },
  });
  // A terminal sends Ctrl-C to the child itself; what is sent to this process alone is passed on.
  process.on("SIGINT", () => {});
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("error", (error) => fail(`cannot run ${program}: ${error.message}`));
  child.on("exit", (status, signal) => {
    process.exitCode = status ?? 128 + constants.signals[signal];
  });
}

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}
