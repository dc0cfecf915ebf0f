/** Rounds in search of rot: how often, how fast, and what a restart changes. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { silentLog } from "../../log.ts";
import type { RecordId } from "../../tier.ts";
import { LastScrub } from "./last-scrub.ts";
import { Scrubber } from "./scrubber.ts";

const dayMs = 24 * 3_600_000;
const began = Date.parse("2026-11-30T00:00:00Z");

beforeEach(() => {
  vi.useFakeTimers({ now: began });
});
afterEach(() => {
  vi.useRealTimers();
});

/** A drive of ten records of 1 MB, read at 1 MB a second. */
function scrubbed(last: { at: number | undefined }) {
  const reads: number[] = [];
  const scrubber = new Scrubber({
    bytesPerSecond: 1e6,
    everyMs: 7 * dayMs,
    records: () => Array.from({ length: 10 }, (_, i) => i as RecordId),
    verify: (id) => {
      reads.push(id);
      return Promise.resolve(1e6);
    },
    last: {
      read: () => last.at,
      write: (at) => {
        last.at = at;
        return Promise.resolve();
      },
    },
    now: Date.now,
  });
  scrubber.start();
  return { scrubber, reads };
}

test("a round reads every record once, no faster than it may, and then nothing is read for a week", async () => {
  const last = { at: undefined };
  const { scrubber, reads } = scrubbed(last);
  await vi.advanceTimersByTimeAsync(6500);
  expect(reads).toHaveLength(6);
  await vi.advanceTimersByTimeAsync(5000);
  expect([reads, scrubber.progress]).toEqual([Array.from({ length: 10 }, (_, i) => i), { bytes: 1e7, rounds: 1 }]);
  expect(last.at).toBe(began + 1000);
  expect(vi.getTimerCount(), "one timer, a week away").toBe(1);
  await vi.advanceTimersByTimeAsync(7 * dayMs - 60_000);
  expect(reads).toHaveLength(10);
  await vi.advanceTimersByTimeAsync(120_000);
  expect(scrubber.progress.rounds).toBe(2);
  await scrubber.stop();
  expect(vi.getTimerCount()).toBe(0);
});

test("a restart neither brings a round nearer nor puts it off", async () => {
  const last = { at: began - 5 * dayMs };
  for (let starts = 0; starts < 20; starts += 1) {
    const { scrubber, reads } = scrubbed(last);
    await vi.advanceTimersByTimeAsync(dayMs / 20);
    expect(reads).toEqual([]);
    await scrubber.stop();
  }
  const { scrubber, reads } = scrubbed(last);
  await vi.advanceTimersByTimeAsync(dayMs + 60_000);
  expect(reads).toHaveLength(10);
  await scrubber.stop();
});

test("one that a restart cuts short is not counted", async () => {
  const last = { at: undefined };
  const { scrubber, reads } = scrubbed(last);
  await vi.advanceTimersByTimeAsync(4000);
  await scrubber.stop();
  expect(reads.length).toBeGreaterThan(2);
  expect(last.at).toBeUndefined();
});

test("the date is kept on the first drive that takes it, and a file that is none is no date", async () => {
  vi.useRealTimers();
  using folder = temporaryFolder();
  using other = temporaryFolder();
  const last = new LastScrub(() => ["/proc/none", folder.path, other.path], silentLog);
  expect(last.read()).toBeUndefined();
  await last.write(began);
  expect(last.read()).toBe(began);
  expect(new LastScrub(() => [other.path], silentLog).read()).toBeUndefined();
  const { writeFileSync } = await import("node:fs");
  writeFileSync(`${folder.path}/scrubbed`, "yesterday");
  expect(last.read()).toBeUndefined();
});
