// Ends every process of a test run once the run is over, however it ended: `node end-with-run.mjs MARK`, its input held open
// by the run. A process belongs to the run when REPRISE_TEST_RUN=MARK stands in its environment: children inherit it, and
// theirs do, whatever groups they made. So Ctrl-C, SIGTERM and `kill -9` of the run leave nothing behind. Needs /proc.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const mark = `REPRISE_TEST_RUN=${process.argv[2]}`;

process.stdin.resume().on("close", async () => {
  if (!existsSync("/proc/self/environ")) return;
  // Whoever was starting a child as it was ended has left that one: look again until there is none.
  const giveUp = performance.now() + 10_000; // on one that cannot end, as in a call to a disk that is gone
  for (let quiet = 0; quiet < 3 && performance.now() < giveUp; await sleep(50)) quiet = endAll() ? 0 : quiet + 1;
});
// The terminal's Ctrl-C is for the run; this ends after it.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => {});

/** @returns whether there was one */
function endAll() {
  let found = false;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    if (!isMarked(pid)) continue;
    found = true;
    try {
      process.kill(Number(pid), "SIGKILL"); // right after the look: its number is not another's yet
    } catch {
      // It has ended meanwhile.
    }
  }
  return found;
}

function isMarked(pid) {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(mark);
  } catch {
    return false; // of another user, or gone
  }
}
