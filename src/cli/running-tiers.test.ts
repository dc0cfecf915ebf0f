import { expect, test } from "vitest";
import { runningTiers } from "./running-tiers.ts";

const tier = {
  records: 5,
  lookups: { found: 1200, nothing: 30, late: 1, failed: 1, remembered: 7, not_worth: 2, busy: 0 },
  lookupSeconds: 12.32,
  readBytes: 3 * 2 ** 30,
  writtenBytes: 2 ** 20,
  readLatencyMs: 2.34,
  readBytesPerSecond: 2 ** 29,
  failures: 2,
  refusedWrites: 3,
  corruptRecords: 0,
  state: { is: "up", forSeconds: 200, lastError: { message: "no answer", agoSeconds: 7300 } },
};

test("each shared tier has a line, and below it where it is and what went wrong", () => {
  const page = runningTiers({
    tiers: {
      disk: tier,
      valkey: { ...tier, where: "cache.example:6379", quota: { limitBytes: 2 ** 40, usedBytes: 2 ** 30 } },
      s3: {
        ...tier,
        where: "s3://kv/reprise at https://s3.example",
        requests: { get: 25, put: 10 },
        quota: { limitBytes: 2 ** 40 },
      },
      peer: { state: { is: "away", forSeconds: 0.4 }, hosts: { "host-a:7000": "there", "host-b:7000": "away" } },
    },
  });
  expect(page.split("\n").map((line) => line.replaceAll(/ {2,}/g, " | "))).toEqual([
    "shared tier | state | found | asked | read | written | answers in | reads in | reads at | failed",
    "valkey | up for 3 min | 1,200 | 1,232 | 3 GiB | 1 MiB | 10 ms | 2.3 ms | 512 MiB/s | 2",
    "s3 | up for 3 min | 1,200 | 1,232 | 3 GiB | 1 MiB | 10 ms | 2.3 ms | 512 MiB/s | 2",
    "peer | away for 0 s | 0 | 0 | 0 B | 0 B | - | - | - | 0",
    "valkey: cache.example:6379",
    "valkey: quota 1 TiB, 1 GiB used",
    "valkey: 3 writes refused",
    "valkey: last error, 2 h ago: no answer",
    "s3: s3://kv/reprise at https://s3.example",
    "s3: quota 1 TiB",
    "s3: requests: 25 get, 10 put",
    "s3: 3 writes refused",
    "s3: last error, 2 h ago: no answer",
    "peer: host-a:7000 there, host-b:7000 away",
    "",
  ]);
});

test("a cache without shared tiers, or of another version, is shown as far as it says something", () => {
  expect(runningTiers({ tiers: { disk: tier } })).toBe("");
  expect(runningTiers({})).toBe("");
  const odd = runningTiers({
    tiers: { "a\u001b[2J": { state: { is: "\u001b]0;x", forSeconds: "?" }, where: 7 }, b: null },
  });
  expect(odd).not.toContain("\u001b");
  expect(odd).toContain("\nb");
});
