// Completes package-lock.json: `node scripts/complete-lock.mjs`. Run it after `npm install` changed the lock file.
// It adds the platform packages that npm left out, since `npm ci` refuses a lock that lacks another platform's binary; gives every
// package that has none its checksum, as the registry in use tells it; and takes out addresses, since those are of one registry.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";

const systems = ["darwin", "linux", "win32", "freebsd", "openbsd", "netbsd", "android", "openharmony", "sunos", "aix"];
const processors = ["arm64", "x64", "arm", "ia32", "ppc64", "riscv64", "s390x", "loong64", "mips64el", "wasm32"];

const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
let added = 0;
for (const entry of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const path = `node_modules/${name}`;
    if (lock.packages[path]) continue;
    lock.packages[path] = platformEntry(name, version, entry.dev === true);
    added += 1;
  }
}
// Packages of one platform's libraries that say they may be installed elsewhere: nobody needs them there.
for (const [path, entry] of Object.entries(lock.packages)) {
  const [, cpu] = /^node_modules\/@node-llama-cpp\/linux-(\w+)$/.exec(path) ?? [];
  if (cpu) entry.cpu = [cpu];
}
let summed = 0;
for (const [path, entry] of Object.entries(lock.packages)) {
  delete entry.resolved;
  if (path === "" || entry.integrity) continue;
  entry.integrity = integrityOf(path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length), entry.version);
  summed += 1;
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync("package-lock.json", `${JSON.stringify(lock, null, 2)}\n`);
console.log(`${added} platform packages added, ${summed} checksums`);

/** Throws when the registry does not know the package: better no lock file than one that takes whatever comes. */
function integrityOf(name, version) {
  const told = execFileSync("npm", ["view", `${name}@${version}`, "dist.integrity", "--json"], { encoding: "utf8" });
  const integrity = told.trim() === "" ? undefined : JSON.parse(told);
  if (!/^sha512-[\w+/]+=*$/.test(integrity)) throw new Error(`no checksum of ${name}@${version}: ${told}`);
  return integrity;
}

function platformEntry(name, version, dev) {
  const words = name.split(/[/-]/);
  const os = words.find((word) => systems.includes(word));
  const cpu = words.find((word) => processors.includes(word)) ?? (words.includes("armv7") ? "arm" : undefined);
  return {
    version,
    ...(cpu ? { cpu: [cpu] } : {}),
    ...(dev ? { dev: true } : {}),
    optional: true,
    ...(os ? { os: [os] } : {}),
  };
}
