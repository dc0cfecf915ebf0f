// Writes the tables of packages in THIRD-PARTY.md: `node scripts/third-party.mjs`. With `--check` it only says whether they are current.
// Names and versions come from package-lock.json, the rest from the installed packages, so run it after `npm ci`. Run it again when a
// dependency changed: test/dependencies.test.ts fails until then.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";

const page = "THIRD-PARTY.md";
const { packages } = JSON.parse(readFileSync("package-lock.json", "utf8"));
const brought = productionPackages();
const ownPlatforms = Object.keys(packages[""].optionalDependencies ?? {});
const isPlatform = (name) => brought.get(name).os !== undefined;

const rows = [...brought.keys()].filter((name) => !isPlatform(name)).map(describe);
const platformRows = [...ownPlatforms.map(describePlatform), ...[...brought.keys()].flatMap(describeFamily)];
const before = readFileSync(page, "utf8");
const after = between(
  "platforms",
  between("packages", before, table(["package", "version", "licence", "copyright"], rows)),
  table(["platform packages", "version", "licence", "copyright", "platforms"], platformRows),
);
if (after === before) process.stdout.write(`${page} is current: ${brought.size} packages\n`);
else if (process.argv.includes("--check")) {
  process.stderr.write(`${page} is not what the lock file says: run node scripts/third-party.mjs\n`);
  process.exitCode = 1;
} else {
  writeFileSync(page, after);
  process.stdout.write(`${page} written: ${brought.size} packages\n`);
}

/** Lock entries by name: what `npm install reprise` can install, on any platform. */
function productionPackages() {
  const found = new Map();
  const queue = namesOf(packages[""]);
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
    if (found.has(name)) continue;
    const entry = packages[`node_modules/${name}`];
    if (entry === undefined) throw new Error(`package-lock.json has no ${name} at its top`);
    found.set(name, entry);
    queue.push(...namesOf(entry));
  }
  const nested = Object.keys(packages).filter((path) => path.includes("/node_modules/") && !packages[path].dev);
  if (nested.length > 0) throw new Error(`two versions of one package are not listed yet: ${nested.join(", ")}`);
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function namesOf({ dependencies, optionalDependencies }) {
  return Object.keys({ ...dependencies, ...optionalDependencies });
}

function describe(name) {
  const { homePage, licence, copyright } = installed(name);
  return [`[${name}](${homePage})`, brought.get(name).version, licence, copyright];
}

/** A platform package of ours. All of them are made together, and only this machine's is installed. */
function describePlatform(name) {
  const { homePage, licence, copyright } = installed(ownPlatforms.find((each) => existsSync(`node_modules/${each}`)));
  const { version, os, cpu } = brought.get(name);
  return [`[${name}](${homePage})`, version, licence, copyright, `${os}-${cpu}`];
}

/** The platform packages of one package, which are under its licence. */
function describeFamily(parent) {
  const all = Object.keys(brought.get(parent).optionalDependencies ?? {}).filter(isPlatform);
  if (all.length === 0) return [];
  const stem = all.reduce(commonStart);
  const versions = [...new Set(all.map((name) => brought.get(name).version))];
  if (versions.length !== 1) throw new Error(`${stem}* has several versions: ${versions.join(", ")}`);
  const [homePage, licence, copyright] = Object.values(installed(parent));
  const platforms = all.map((name) => name.slice(stem.length)).sort();
  return [[`[${stem}*](${homePage})`, versions[0], licence, copyright, platforms.join(", ")]];
}

function commonStart(a, b) {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length += 1;
  return a.slice(0, length);
}

/** What an installed package says of itself. @throws when it is missing, or has no licence file. */
function installed(name) {
  const folder = `node_modules/${name}`;
  if (!existsSync(folder)) throw new Error(`${name} is not installed: run npm ci`);
  const { license, homepage, repository, author } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  if (file === undefined) throw new Error(`${name} has no licence file`);
  const holders = copyrightLines(readFileSync(`${folder}/${file}`, "utf8"));
  const named = typeof author === "string" ? author : author?.name;
  return {
    homePage: homepage ?? addressOf(typeof repository === "string" ? repository : repository.url),
    licence: license,
    copyright: holders.length > 0 ? holders.join("; ") : withoutAddresses(named ?? ""),
  };
}

/** Of a licence file the lines that name somebody, and not those of the licence's own text. */
function copyrightLines(text) {
  const lines = text.split("\n").map((line) => withoutAddresses(line.replace(/^[\s-]+/, "")));
  return lines.filter(
    (line) =>
      /^copyright (\(c\)|©|\d{4}|[A-Z])/i.test(line) && !/\[yyyy\]|copyright (owner|notice|holder|license)/i.test(line),
  );
}

function withoutAddresses(text) {
  return text
    .replaceAll(/\s*(<[^>]*>|\([^)]*[./@][^)]*\))/g, "")
    .replaceAll(/\s+/g, " ")
    .trim();
}

/** An https address for what package.json calls its repository, in any of the forms that npm reads. */
function addressOf(repository) {
  const path = repository.replace(/^(git\+)?(https?|git|ssh):\/\/(git@)?|^git@|^github:/, "").replace(/\.git$/, "");
  const address = path.replace(/^github\.com[/:]/, "");
  return `https://github.com/${address}`;
}

function table(heads, lines) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(heads), line(heads.map(() => "---")), ...lines.map(line)].join("\n");
}

function between(name, text, inside) {
  const [begin, end] = [`<!-- ${name}: begin -->\n`, `<!-- ${name}: end -->\n`];
  const [head, rest] = text.split(begin);
  const [, tail] = (rest ?? "").split(end);
  if (tail === undefined) throw new Error(`${page} has no markers for ${name}`);
  return `${head}${begin}\n${inside}\n\n${end}${tail}`;
}
