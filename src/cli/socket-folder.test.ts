/** The socket's own folder, and what killed caches left of theirs in a folder that others write, too. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { temporaryDirectory } from "../../test/support/data-directory.ts";
import { asOther, needsAnotherUser, plants, privateFolder, sharedFolder } from "../../test/support/other-user.ts";
import { createLog, silentLog } from "../log.ts";
import { CacheHost } from "./cache-host.ts";
import { SocketFolder, sweepSocketFolders } from "./socket-folder.ts";

let shared: string;

beforeEach(() => {
  shared = sharedFolder();
  vi.stubEnv("TMPDIR", shared);
  return () => vi.unstubAllEnvs();
});

function sweep(): Promise<void> {
  return sweepSocketFolders({ signal: new AbortController().signal, log: silentLog });
}

function socketFolders(): string[] {
  return readdirSync(shared).filter((name) => name.startsWith("reprise-socket-"));
}

/** As a killed cache leaves it: a socket that nobody listens on, in a folder that nobody has locked. */
function deadFolder(name: string): string {
  const path = join(shared, name);
  mkdirSync(path, { mode: 0o700 });
  const script = "require('net').createServer().listen(process.argv[1], () => process.exit(0))";
  execFileSync(process.execPath, ["-e", script, join(path, "cache.sock")]);
  return path;
}

test("a start removes the folders of dead caches' sockets, and leaves those of living ones", async () => {
  const dead = [deadFolder("reprise-socket-a1B2c3"), join(shared, "reprise-socket-empty1")];
  mkdirSync(dead[1]!, { mode: 0o700 });
  const living = SocketFolder.make();
  onTestFinished(() => living[Symbol.dispose]());
  expect(statSync(living.path).mode & 0o777).toBe(0o700);
  const config = {
    dataDir: privateFolder(),
    memory: 64 * 2 ** 20,
    poolDir: temporaryDirectory(),
    disk: [],
    socket: "",
    scrubDays: 7,
  };
  const host = await CacheHost.open({ config, log: silentLog });
  await host.swept;
  await host[Symbol.asyncDispose]();
  expect(socketFolders()).toEqual([basename(living.path)]);
});

test("a folder in which something else lies, or that others may enter, stays as it is", async () => {
  const used = deadFolder("reprise-socket-used12");
  writeFileSync(join(used, "notes"), "ours");
  const open = join(shared, "reprise-socket-open12");
  mkdirSync(open, { mode: 0o755 });
  const odd = join(shared, "reprise-socket-longer-name");
  mkdirSync(odd, { mode: 0o700 });
  const file = join(used, "cache.sock");
  rmSync(file);
  writeFileSync(file, "no socket");
  await sweep();
  expect(readdirSync(used).sort()).toEqual(["cache.sock", "notes"]);
  expect(existsSync(open) && existsSync(odd)).toBe(true);
});

test("what another user plants under such names is not touched, and leads nowhere", async (context) => {
  needsAnotherUser(context);
  const victim = deadFolder("reprise-socket-victim"); // as ours as can be, under a name that is swept
  const hidden = join(privateFolder(), "victim");
  execFileSync("mv", [victim, hidden]);
  let number = 100_000;
  for (const plant of Object.values(plants)) plant(join(shared, `reprise-socket-${(number += 1)}`), hidden);
  asOther("fs.mkdirSync(argument, { mode: 0o700 })", join(shared, "reprise-socket-theirs"));
  const planted = socketFolders();
  await sweep();
  expect(socketFolders()).toEqual(planted);
  expect(readdirSync(hidden)).toEqual(["cache.sock"]);
});

test("without a folder for temporary files nothing is swept and nothing said", async () => {
  vi.stubEnv("TMPDIR", join(shared, "absent"));
  const lines: string[] = [];
  const log = createLog({ level: "warn", write: (line) => lines.push(line) });
  await sweepSocketFolders({ signal: new AbortController().signal, log });
  expect(lines).toEqual([]);
});
