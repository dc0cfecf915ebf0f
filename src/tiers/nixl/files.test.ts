import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { filesBelow, temporaryDirectory } from "../../../test/support/data-directory.ts";
import { rounds } from "../../../test/support/depth.ts";
import { fileOf, isHere, maxRecordBytes, storeOf, tierOf, wheel } from "../../../test/support/nixl.ts";
import { codeOf } from "../../errors.ts";
import { noSignal, recordOf, stored } from "../tier-suite.ts";
import { mostValueBytes } from "./medium.ts";

const aHead = () => randomBytes(32).toString("hex");
const aPiece = () => `${randomBytes(16).toString("hex")}:0:0`;

function planted(path: string): void {
  rmSync(path, { recursive: true, force: true });
  writeFileSync(path, "of somebody else", { mode: 0o600 });
}

function loop(path: string): void {
  rmSync(path, { recursive: true, force: true });
  symlinkSync(path, path);
}

describe.skipIf(!isHere)("values as files", () => {
  test("lie two folders deep, closed to others, and are read by whoever has the folder", async () => {
    const folder = temporaryDirectory();
    await using one = storeOf(`nixl://posix${folder}`);
    await using two = storeOf(`nixl://posix${folder}`);
    const [head, piece] = [aHead(), aPiece()];
    const bytes = randomBytes(mostValueBytes);
    expect(
      await one.write(
        [
          { name: piece, bytes },
          { name: head, bytes: bytes.subarray(0, 700) },
        ],
        "a",
        noSignal,
      ),
    ).toBe("written");
    const path = fileOf(folder, piece);
    expect(lstatSync(path).mode & 0o777).toBe(0o600);
    expect(lstatSync(dirname(path)).mode & 0o777).toBe(0o700);
    expect(readFileSync(path).equals(bytes)).toBe(true);
    const into = Buffer.alloc(bytes.length);
    expect(await two.read(piece, into, noSignal)).toBe("read");
    expect(into.equals(bytes)).toBe(true);
    expect(await two.getAll([aHead(), head, piece], 1000, noSignal)).toEqual([
      undefined,
      bytes.subarray(0, 700),
      undefined, // longer
    ]);
  });

  test("a value of another length, or of none, is gone, and leaves the memory as it was", async () => {
    const folder = temporaryDirectory();
    await using store = storeOf(`nixl://posix${folder}`);
    const name = aPiece();
    await store.write([{ name, bytes: randomBytes(10_000) }], "a", noSignal);
    const into = Buffer.alloc(10_000, "untouched");
    const before = Buffer.from(into);
    for (const length of [9999, 10_001, 0]) {
      truncateSync(fileOf(folder, name), length);
      expect(await store.read(name, into, noSignal), String(length)).toBe("gone");
      expect(await store.getAll([name], 9998, noSignal)).toEqual([undefined]);
    }
    rmSync(fileOf(folder, name));
    expect(await store.read(name, into, noSignal)).toBe("gone");
    expect(into.equals(before)).toBe(true);
  });

  test("a link is not followed, neither by reading nor by writing, and a file that others may write is none", async () => {
    const folder = temporaryDirectory();
    await using store = storeOf(`nixl://posix${folder}`);
    const other = join(temporaryDirectory(), "secret");
    writeFileSync(other, "of somebody else", { mode: 0o600 });
    const name = aHead();
    mkdirSync(dirname(fileOf(folder, name)), { recursive: true });
    symlinkSync(other, fileOf(folder, name));
    expect(await store.getAll([name], 1000, noSignal)).toEqual([undefined]);
    expect(await store.write([{ name, bytes: Buffer.from("ours") }], "a", noSignal)).toBe("written");
    expect(readFileSync(other, "utf8")).toBe("of somebody else");
    expect(await store.getAll([name], 1000, noSignal)).toEqual([Buffer.from("ours")]);
    chmodSync(fileOf(folder, name), 0o666);
    expect(await store.getAll([name], 1000, noSignal)).toEqual([undefined]);
    // A folder on the way that is a link leads nowhere.
    const moved = aHead();
    rmSync(join(folder, moved[0]!), { recursive: true, force: true });
    symlinkSync(temporaryDirectory(), join(folder, moved[0]!));
    expect(await store.write([{ name: moved, bytes: Buffer.from("ours") }], "a", noSignal)).toBe("full");
  });

  test.each<[string, (path: string, folder: string) => void]>([
    ["an empty file", (path) => writeFileSync(path, "", { mode: 0o600 })],
    ["a file that others may read", (path) => writeFileSync(path, "a head", { mode: 0o644 })],
    ["a directory", (path) => mkdirSync(join(path, "within"), { recursive: true })],
    ["a FIFO", (path) => spawnSync("mkfifo", ["-m", "600", path])],
    ["a link to itself", (path) => symlinkSync(path, path)],
    ["a file where its folder should be", (path) => planted(dirname(path))],
    ["a file where its folder's folder should be", (path) => planted(dirname(dirname(path)))],
    ["a link to itself where its folder should be", (path) => loop(dirname(path))],
    ["a folder that others may write", (path) => chmodSync(dirname(path), 0o777)],
  ])("%s in a record's place costs that record alone", async (_what, plant) => {
    const folder = temporaryDirectory();
    await using store = storeOf(`nixl://posix${folder}`);
    const [bad, well] = [`0${aHead().slice(1)}`, `1${aHead().slice(1)}`];
    const bytes = randomBytes(6);
    mkdirSync(dirname(fileOf(folder, bad)), { recursive: true });
    plant(fileOf(folder, bad), folder);
    expect(["written", "full"]).toContain(await store.write([{ name: bad, bytes }], "a", noSignal));
    expect(await store.write([{ name: well, bytes }], "a", noSignal)).toBe("written");
    rmSync(join(folder, "0"), { recursive: true });
    mkdirSync(dirname(fileOf(folder, bad)), { recursive: true });
    plant(fileOf(folder, bad), folder);
    expect(await store.getAll([bad, well], 100, noSignal)).toEqual([undefined, bytes]);
    expect(await store.read(bad, Buffer.alloc(6), noSignal)).toBe("gone");
    expect(await store.read(well, Buffer.alloc(6), noSignal)).toBe("read");
  });

  test("a folder that goes is told of, and not taken for one without records", async () => {
    const folder = temporaryDirectory();
    await using store = storeOf(`nixl://posix${folder}`);
    const name = aHead();
    await store.write([{ name, bytes: randomBytes(10) }], "a", noSignal);
    rmSync(folder, { recursive: true });
    planted(folder);
    await expect(store.getAll([name], 100, noSignal)).rejects.toThrow("ENOTDIR");
    await expect(store.write([{ name, bytes: randomBytes(10) }], "a", noSignal)).rejects.toThrow("ENOTDIR");
  });

  test.each(["../../etc/passwd", "a/b", "", "A".repeat(64), `${"0".repeat(64)}/..`])(
    "%j is no name of a value",
    async (name) => {
      await using store = storeOf(`nixl://posix${temporaryDirectory()}`);
      await expect(store.getAll([name], 10, noSignal)).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
      await expect(store.write([{ name, bytes: Buffer.alloc(1) }], "a", noSignal)).rejects.toThrow("no name");
    },
  );

  test("a head that has ended its time is not there", async () => {
    const folder = temporaryDirectory();
    await using store = storeOf(`nixl://posix${folder}?ttl=1h`);
    const name = aHead();
    await store.write([{ name, bytes: Buffer.from("a head") }], "a", noSignal);
    const [young, old] = [Date.now() / 1000 - 3500, Date.now() / 1000 - 3700];
    utimesSync(fileOf(folder, name), young, young);
    expect(await store.getAll([name], 100, noSignal)).toEqual([Buffer.from("a head")]);
    utimesSync(fileOf(folder, name), old, old);
    expect(await store.getAll([name], 100, noSignal)).toEqual([undefined]);
  });

  test("a folder that is away, or open to others, is told of; it is used once it is as it must be", async () => {
    const folder = join(temporaryDirectory(), "later");
    await using store = storeOf(`nixl://posix${folder}`);
    const ask = () => store.getAll([aHead()], 10, noSignal).catch(codeOf);
    expect(await ask()).toBe("TIER_UNAVAILABLE");
    await expect(store.getAll([aHead()], 10, noSignal)).rejects.toThrow(/no such folder: .* mkdir -m 700/);
    mkdirSync(folder, { mode: 0o777 });
    chmodSync(folder, 0o777);
    await expect(store.getAll([aHead()], 10, noSignal)).rejects.toThrow("can be written by others");
    chmodSync(folder, 0o700);
    expect(await ask()).toEqual([undefined]);
  });

  test("a full file system is no fault: what does not fit is refused, and leaves nothing", async ({ skip }) => {
    const mount = join(temporaryDirectory(), "small");
    mkdirSync(mount);
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", mount]).status === 0;
    if (!mounted) skip("mounting a small tmpfs needs root on linux");
    try {
      const values = Array.from({ length: 6 }, () => ({ name: aPiece(), bytes: randomBytes(900_000) }));
      const answers: string[] = [];
      {
        await using store = storeOf(`nixl://posix${mount}`);
        for (const value of values) answers.push(await store.write([value], "a", noSignal));
        expect(answers.slice(0, 3)).toEqual(["written", "written", "written"]);
        expect(answers.slice(3)).toEqual(["full", "full", "full"]);
        const into = Buffer.alloc(900_000);
        for (const { name, bytes } of values.slice(0, 3)) {
          expect(await store.read(name, into, noSignal)).toBe("read");
          expect(into.equals(bytes)).toBe(true);
        }
      }
      expect(filesBelow(mount)).toHaveLength(3);
      rmSync(fileOf(mount, values[0]!.name));
      await using store = storeOf(`nixl://posix${mount}`);
      expect(await store.write([values[3]!], "a", noSignal)).toBe("written");
    } finally {
      spawnSync("umount", [mount]);
    }
  });

  test("never more than it may be, of all that lies there", async () => {
    const folder = temporaryDirectory();
    const bytes = randomBytes(100_000);
    const write = async (store: ReturnType<typeof storeOf>) => store.write([{ name: aPiece(), bytes }], "a", noSignal);
    {
      await using store = storeOf(`nixl://posix${folder}`);
      for (let i = 0; i < 8; i += 1) await write(store);
    }
    await using store = storeOf(`nixl://posix${folder}?max=1MB`);
    // What lies there is counted first.
    await expect.poll(() => write(store), { timeout: 10_000 }).toBe("written");
    expect(await write(store)).toBe("written");
    expect(await write(store)).toBe("full");
    expect(filesBelow(folder)).toHaveLength(10);
    expect(store.where).toBe(`nixl://posix${folder}`);
    expect(store.quota()).toMatchObject({ limitBytes: 1_000_000 });
    expect(store.quota()?.usedBytes).toBeGreaterThan(500_000);
  });

  test("a writer that is killed leaves whole values, and what was being written under no name", async () => {
    const folder = temporaryDirectory();
    const program = join(import.meta.dirname, "../../../test/support/nixl-writer.mjs");
    const bytes = 3_000_000;
    for (let round = 0; round < rounds({ small: 4, full: 40 }); round += 1) {
      const child = spawn(process.execPath, [program, `nixl://posix${folder}`, wheel, String(bytes)], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      await once(child.stdout, "data"); // it writes
      await sleep(Math.random() * 20);
      child.kill("SIGKILL");
      await once(child, "exit");
    }
    const files = filesBelow(folder);
    const values = files.filter((path) => !path.endsWith(".new"));
    expect(values.length).toBeGreaterThan(0);
    for (const path of values) {
      expect(statSync(path).size).toBe(bytes);
      const found = readFileSync(path);
      expect(found.every((byte) => byte === found[0])).toBe(true);
    }
    await using store = storeOf(`nixl://posix${folder}`);
    const name = values[0]!.slice(values[0]!.lastIndexOf("/") + 1).replaceAll("-", ":");
    expect(await store.read(name, Buffer.alloc(bytes), noSignal)).toBe("read");
  });

  test("whoever leaves, in whatever moment, has its memory back: nothing comes later, and nothing of it is written", async () => {
    const folder = temporaryDirectory();
    await using store = storeOf(`nixl://posix${folder}?transfers=2`);
    const [ours, theirs] = [Buffer.alloc(mostValueBytes, "ours"), Buffer.alloc(mostValueBytes, "theirs")];
    const stable = aPiece();
    await store.write([{ name: stable, bytes: ours }], "a", noSignal);
    const left: { memory: Buffer; outcome: string }[] = [];
    for (let i = 0; i < rounds({ small: 60, full: 600 }); i += 1) {
      const leaving = new AbortController();
      const name = i % 2 === 0 ? stable : aPiece();
      const memory = Buffer.from(ours);
      const work =
        i % 2 === 0
          ? store.read(name, memory.fill(0), leaving.signal)
          : store.write([{ name, bytes: memory }], "a", leaving.signal);
      const settled = work.then(
        (outcome) => outcome,
        (error: unknown) => codeOf(error) ?? "odd",
      );
      await sleep(Math.random() * 6);
      leaving.abort();
      const outcome = await settled;
      if (outcome === "read") expect(memory.equals(ours)).toBe(true);
      memory.set(theirs); // it is somebody else's now
      left.push({ memory, outcome });
      if (left.length > 8) left.shift();
    }
    expect(await store.read(stable, Buffer.alloc(mostValueBytes), noSignal)).toBe("read");
    for (const { memory } of left) expect(memory.equals(theirs)).toBe(true);
    await store[Symbol.asyncDispose]();
    // A write that was given up is there whole, or not at all; what came into its memory afterwards is nowhere.
    for (const path of filesBelow(folder)) expect(readFileSync(path).equals(ours), path).toBe(true);
  }, 60_000);

  test("files that go, or are cut, while records are read cost those records, never a wrong byte", async () => {
    const folder = temporaryDirectory();
    await using tier = tierOf(`nixl://posix${folder}`, { maxRecordBytes: 4 * maxRecordBytes });
    const payloads = [randomBytes(9_000_000)];
    const outcomes = new Set<unknown>();
    for (let i = 0; i < 12; i += 1) {
      const record = recordOf(Uint32Array.from([i]), payloads);
      const id = await stored(tier, record, payloads);
      const into = new Uint8Array(9_000_000);
      const pieces = filesBelow(folder).filter((path) => path.includes("-"));
      const reading = tier.read(id, record.key, [into], noSignal).catch(codeOf);
      if (i > 0) await sleep(Math.random() * 4);
      if (i % 2 === 0) for (const path of pieces) rmSync(path);
      else for (const path of pieces) truncateSync(path, 1000);
      const outcome = await reading;
      if (outcome === "read") expect(Buffer.compare(into, payloads[0]!)).toBe(0);
      outcomes.add(outcome);
      for (const path of filesBelow(folder)) rmSync(path);
    }
    expect(outcomes.size).toBeGreaterThan(0);
    for (const outcome of outcomes) expect(["read", "gone", "RECORD_CORRUPT", "TIER_UNAVAILABLE"]).toContain(outcome);
  });
});
