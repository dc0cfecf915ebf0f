/** What NIXL's own agents do only where the machine has no more to give, or a drive is bad. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { mapMemory, unmap } from "../../ffi/posix.ts";
import type { NixlAgent, Transfer } from "./agent.ts";
import { Files, pathIn } from "./files.ts";
import { memoryBytes } from "./medium.ts";
import { Objects } from "./objects.ts";

const drive = vi.hoisted(() => ({ isBad: false }));

vi.mock(import("node:fs"), async (original) => {
  const fs = await original();
  const readSync = ((...given: Parameters<typeof fs.readSync>) => {
    if (drive.isBad) throw Object.assign(new Error("EIO: i/o error, read"), { code: "EIO", syscall: "read" });
    return fs.readSync(...given);
  }) as typeof fs.readSync; // in any of its shapes
  return { ...fs, readSync };
});

function memoryOf() {
  const memory = { address: mapMemory(memoryBytes), bytes: memoryBytes };
  onTestFinished(() => unmap(memory.address, memory.bytes));
  return memory;
}

test("files: an agent that was closed is not used again, also where no other could be opened", () => {
  const folder = temporaryDirectory();
  const name = "a".repeat(64);
  mkdirSync(dirname(pathIn(folder, name)), { recursive: true });
  writeFileSync(pathIn(folder, name), "value", { mode: 0o600 });
  const said: string[] = [];
  const openAgent = () => {
    const number = said.filter((each) => each === "open").length;
    said.push("open");
    if (number === 1) throw new Error("no more queues");
    const outcome = number === 0 ? "failed" : "done";
    let isClosed = false;
    return {
      begin: (): Transfer => {
        if (isClosed) throw new Error("used when it was closed");
        return { poll: () => outcome, free: () => {} };
      },
      close: () => {
        said.push("close");
        isClosed = true;
      },
    } as unknown as NixlAgent; // as far as files need it
  };
  const files = new Files({ folder, ttlSeconds: 60, memory: memoryOf(), openAgent, wait: (poll) => poll() as "done" });
  expect(() => files.read(name, 5)).toThrow(`${name} could not be read`);
  expect(() => files.read(name, 5)).toThrow("no more queues");
  expect(files.read(name, 5)).toBe("read");
  files.close();
  expect(said).toEqual(["open", "close", "open", "open", "close"]);
});

test("objects: a read that does not begin leaves none of the others under way", () => {
  let [begun, freed] = [0, 0];
  const agent = {
    begin: (): Transfer => {
      if (begun === 3) throw new Error("no more");
      begun += 1;
      return { poll: () => "done", free: () => (freed += 1) };
    },
  } as unknown as NixlAgent; // as far as this goes
  let waits = 0;
  const wait = () => {
    waits += 1;
    return "done" as const;
  };
  const objects = new Objects({ prefix: "p", memory: memoryOf(), openAgent: () => agent, wait });
  const names = Array.from({ length: 8 }, (_, i) => String(i).repeat(64));
  expect(() => objects.getAll(names, { maxBytes: 1000, isWanted: () => true })).toThrow("no more");
  expect([begun, waits, freed]).toEqual([3, 3, 3]);
});

test("files: one that the system itself cannot read is not there; one that only NIXL cannot read is NIXL's fault", () => {
  const folder = temporaryDirectory();
  const names = ["a", "b"].map((digit) => digit.repeat(64));
  for (const name of names) {
    mkdirSync(dirname(pathIn(folder, name)), { recursive: true });
    writeFileSync(pathIn(folder, name), "value", { mode: 0o600 });
  }
  const outcomes: ("failed" | "done")[] = [];
  const openAgent = () =>
    ({
      begin: (): Transfer => ({ poll: () => outcomes.shift()!, free: () => {} }),
      close: () => {},
    }) as unknown as NixlAgent; // as far as files need it
  const files = new Files({ folder, ttlSeconds: 60, memory: memoryOf(), openAgent, wait: (poll) => poll() as "done" });
  const wanted = { maxBytes: 100, isWanted: () => true };
  onTestFinished(() => void (drive.isBad = false));
  drive.isBad = true;
  outcomes.push("failed", "done");
  expect(files.getAll(names, wanted)).toEqual([undefined, new Uint8Array(5)]);
  outcomes.push("failed");
  expect(files.read(names[0]!, 5)).toBe("gone");
  drive.isBad = false;
  outcomes.push("failed");
  expect(() => files.getAll(names, wanted)).toThrow("could not be read");
});

test("what nobody waits for any more is not read", () => {
  const folder = temporaryDirectory();
  const names = Array.from({ length: 8 }, (_, i) => String(i).repeat(64));
  for (const name of names) {
    mkdirSync(dirname(pathIn(folder, name)), { recursive: true });
    writeFileSync(pathIn(folder, name), "value", { mode: 0o600 });
  }
  let begun = 0;
  const begin = (): Transfer => {
    begun += 1;
    return { poll: () => "done", free: () => {} };
  };
  const options = {
    memory: memoryOf(),
    openAgent: () => ({ begin }) as unknown as NixlAgent,
    wait: () => "done" as const,
  }; // as far as they need it
  const media = [new Files({ folder, ttlSeconds: 60, ...options }), new Objects({ prefix: "p", ...options })];
  for (const medium of media) {
    begun = 0;
    medium.getAll(names, { maxBytes: 100, isWanted: () => begun < 3 });
    expect(begun).toBe(3);
  }
});
