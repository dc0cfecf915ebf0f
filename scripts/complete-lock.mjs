// Adds to package-lock.json the platform packages that the registry in use does not carry: `node scripts/complete-lock.mjs`.
// Run it after `npm install` changed the lock file: `npm ci` refuses a lock that leaves out another platform's binary.
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
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync("package-lock.json", `${JSON.stringify(lock, null, 2)}\n`);
console.log(`${added} platform packages added`);

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
