import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { fileOf } from "../../../test/support/nixl.ts";
import { collect } from "./collector.ts";

const now = Date.now();
const hour = 3600;

function put(folder: string, name: string, { bytes, ageSeconds }: { bytes: number; ageSeconds: number }): string {
  const path = fileOf(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, new Uint8Array(bytes));
  utimesSync(path, now / 1000 - ageSeconds, now / 1000 - ageSeconds);
  return path;
}

function run(folder: string, maxBytes?: number, pause = () => {}) {
  return collect({ folder, ttlSeconds: hour, maxBytes, now: () => now, pause });
}

const head = () => randomBytes(32).toString("hex");
const piece = () => `${randomBytes(16).toString("hex")}:0:0`;

test("what has ended its time goes, heads before pieces; what is ours and young, and what is not ours, stays", () => {
  const folder = temporaryDirectory();
  const old = { bytes: 10, ageSeconds: hour + 60 };
  const gone = [
    put(folder, head(), old),
    put(folder, piece(), { ...old, ageSeconds: hour + 700 }),
    put(folder, `${head()}.${"a".repeat(16)}.new`, { ...old, ageSeconds: 2 * hour }),
  ];
  const left = [
    put(folder, head(), { bytes: 100, ageSeconds: 10 }),
    put(folder, head(), { bytes: 100, ageSeconds: -7200 }), // of a host whose clock is ahead
    put(folder, piece(), old),
    put(folder, `${piece()}.${"b".repeat(16)}.new`, { ...old, ageSeconds: 60 }),
  ];
  const strange = put(folder, "notes.txt", { ...old, ageSeconds: 100 * hour });
  const target = put(temporaryDirectory(), head(), { ...old, ageSeconds: 100 * hour });
  const link = fileOf(folder, head());
  mkdirSync(dirname(link), { recursive: true });
  symlinkSync(target, link);
  expect(run(folder)).toEqual({ removedFiles: 3, removedBytes: 30, leftBytes: 220 });
  expect(gone.filter((path) => existsSync(path))).toEqual([]);
  for (const path of [...left, strange, target, link]) expect(existsSync(path), path).toBe(true);
});

test("more than there may be: the oldest go, down to nine tenths, heads a little before their pieces", () => {
  const folder = temporaryDirectory();
  const pairs = Array.from({ length: 20 }, (_, i) => ({
    piece: put(folder, piece(), { bytes: 1000, ageSeconds: i * 60 + 1 }),
    head: put(folder, head(), { bytes: 10, ageSeconds: i * 60 }),
  }));
  expect(run(folder, 50_000).removedFiles).toBe(0);
  const { leftBytes } = run(folder, 10_000);
  expect(leftBytes).toBeLessThanOrEqual(9000);
  expect(leftBytes).toBeGreaterThan(7000);
  const kept = pairs.map((pair) => [existsSync(pair.piece), existsSync(pair.head)]);
  expect(kept.findLastIndex(([each]) => each)).toBe(Math.floor(leftBytes / 1010) - 1);
  expect(kept.filter(([hasPiece, hasHead]) => hasHead === true && hasPiece !== true)).toEqual([]);
});

test("what cannot be removed stays, and the rest goes", ({ skip }) => {
  const folder = temporaryDirectory();
  const old = { bytes: 10, ageSeconds: hour + 60 };
  const kept = put(folder, head(), old);
  if (spawnSync("chattr", ["+i", kept]).status !== 0) skip("chattr +i needs root and a file system that has it");
  try {
    const gone = [put(folder, head(), old), put(folder, head(), old)];
    expect(run(folder)).toEqual({ removedFiles: 2, removedBytes: 20, leftBytes: 10 });
    expect(gone.filter((path) => existsSync(path))).toEqual([]);
  } finally {
    spawnSync("chattr", ["-i", kept]);
  }
});

test("several may do it at once, and it ends when it is told to", () => {
  const folder = temporaryDirectory();
  const path = put(folder, head(), { bytes: 10, ageSeconds: 2 * hour });
  // Another host takes it while this one walks.
  let looks = 0;
  const other = () => {
    looks += 1;
    if (looks === 1) run(folder);
  };
  run(folder, undefined, other);
  expect(existsSync(path)).toBe(false);
  expect(() =>
    run(folder, undefined, () => {
      throw new Error("over");
    }),
  ).toThrow("over");
  expect(run(join(folder, "nowhere"))).toEqual({ removedFiles: 0, removedBytes: 0, leftBytes: 0 });
});
