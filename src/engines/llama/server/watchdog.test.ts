import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, onTestFinished, test } from "vitest";
import { until } from "../../../../test/support/engine.ts";
import { Watchdog } from "./watchdog.ts";
import type { WatchLimits } from "./watchdog.ts";

const limits: WatchLimits = { silentMs: 400, hungMs: 1000, busyMs: 60_000, tickMs: 100 };

/** A process that runs `program`, once it has begun, under a watchdog that remembers what it said. */
async function watched(program: string, change: Partial<WatchLimits> = {}) {
  const child = spawn(process.execPath, ["-e", `process.stdout.write("begun"); ${program}`], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  const seen: string[] = [];
  let pings = 0;
  const watchdog = new Watchdog({
    limits: { ...limits, ...change },
    pid: child.pid,
    ping: () => (pings += 1),
    onHung: (how) => seen.push(how),
  });
  onTestFinished(() => {
    watchdog.stop();
    child.kill("SIGKILL");
  });
  return { watchdog, seen, pings: () => pings, pid: child.pid! };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const works = "for (;;);";
const waits = "setTimeout(() => {}, 60_000);";

test.runIf(process.platform === "linux")("who works without a word is alive, until it is stopped", async () => {
  const { watchdog, seen, pid } = await watched(works);
  await pause(2000);
  expect(seen).toEqual([]);
  expect(watchdog.isSilent).toBe(false);
  process.kill(pid, "SIGSTOP");
  await until(() => watchdog.isSilent);
  expect(seen, "silent comes before hung").toEqual([]);
  await until(() => seen.length > 0);
  expect(seen).toEqual(["it did nothing for 1 s"]);
});

test("who works without a word for too long hangs", async () => {
  const { seen } = await watched(works, { busyMs: 1000 });
  await until(() => seen.length > 0);
  expect(seen).toEqual(["it said nothing for 1 s"]);
});

test("who answers is alive, and is asked once for each answer", async () => {
  const { watchdog, seen, pings } = await watched(waits);
  for (let answered = 0; answered < 20; answered += 1) {
    await until(() => pings() > answered);
    expect(pings()).toBe(answered + 1);
    watchdog.heard();
  }
  expect(seen).toEqual([]);
});

test.runIf(process.platform === "linux")("who neither works nor answers hangs", async () => {
  const { seen } = await watched(waits);
  await until(() => seen.length > 0);
  expect(seen).toHaveLength(1);
});
