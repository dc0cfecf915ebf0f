/** Around a whole run of vitest: a build that is as new as the sources, and nothing left behind when it ends. */
import { spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import type { Socket } from "node:net";
import { join } from "node:path";
import { repositoryRoot } from "./repository.ts";

/** vitest's globalSetup. @throws Error with what the compiler said */
export function setup(): void {
  build();
  endProcessesWithRun();
}

/** The tests start what is built: the command, the engine's process, the disk tier's threads. Says so when it builds. */
function build(): void {
  const done = spawnSync(process.execPath, [join(repositoryRoot, "scripts", "ready.mjs"), "--no-install"], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (done.status !== 0) throw new Error("The tests need a build, and it failed: see above.");
}

/** See end-with-run.mjs. Once a run, although every project of vitest's asks. */
function endProcessesWithRun(): void {
  if (guarded) return;
  guarded = true;
  // Before it is marked, as it must not end itself; in a session of its own, as a terminal's signals are not for it.
  const guard = spawn(process.execPath, [join(repositoryRoot, "test", "support", "end-with-run.mjs"), mark], {
    stdio: ["pipe", "ignore", "inherit"],
    detached: true,
    env: { ...process.env, REPRISE_TEST_RUN: "" },
  });
  guard.unref();
  (guard.stdin as Socket).unref(); // a pipe of a child is one
  process.env["REPRISE_TEST_RUN"] = mark;
}

const mark = randomUUID();
let guarded = false;
