import { execFileSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  existsSync,
  fstatSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../test/support/data-directory.ts";
import { asOther, needsAnotherUser, plants, privateFolder, sharedFolder } from "../test/support/other-user.ts";
import {
  createPrivateFile,
  openOrCreatePrivateFile,
  openPrivateFile,
  readPrivateFile,
  removeUnfinished,
  replacePrivateFile,
  replaceSmallPrivateFile,
} from "./private-files.ts";

const bytes = Buffer.from("these are ours");

test("a file of ours is made once, 0600 whatever the mask, and opened again", () => {
  const path = join(temporaryDirectory(), "file");
  const mask = process.umask(0o277);
  try {
    closeSync(createPrivateFile(path));
  } finally {
    process.umask(mask);
  }
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(() => createPrivateFile(path)).toThrow("EEXIST");
  writeFileSync(path, bytes);
  const file = openPrivateFile(path, "write", { names: "one" }) as number;
  expect(fstatSync(file).size).toBe(bytes.length);
  closeSync(file);
  expect(readPrivateFile(path, 100)).toEqual(bytes);
  expect(readPrivateFile(path, 3)).toMatchObject({ foreign: expect.stringContaining("14 bytes") as string });
  expect(openPrivateFile(join(path, "..", "other"), "read")).toBe("absent");
});

test("what is no regular file is foreign, opens nothing and blocks nobody", () => {
  const folder = temporaryDirectory();
  const at = (name: string) => join(folder, name);
  writeFileSync(at("victim"), bytes, { mode: 0o600 });
  mkdirSync(at("directory"));
  symlinkSync(at("victim"), at("link"));
  symlinkSync(at("nowhere"), at("dangling"));
  execFileSync("mkfifo", [at("fifo")]);
  symlinkSync(at("fifo"), at("link to fifo"));
  for (const access of ["read", "write"] as const) {
    expect(openPrivateFile(at("directory"), access)).toEqual({ foreign: "is a directory" });
    for (const name of ["link", "dangling", "link to fifo"])
      expect(openPrivateFile(at(name), access)).toEqual({ foreign: "is a link" });
    expect(openPrivateFile(at("fifo"), access)).toEqual({ foreign: "is a FIFO" });
    expect(openPrivateFile("/dev/null", access)).toEqual({ foreign: "is a device" });
  }
  expect(openOrCreatePrivateFile(at("dangling"))).toEqual({ foreign: "is a link" });
  expect(existsSync(at("nowhere"))).toBe(false);
  expect(() => createPrivateFile(at("dangling"))).toThrow("EEXIST");
});

test("a file that others may write is foreign; one they may read is too, or is closed to them", () => {
  const path = join(temporaryDirectory(), "file");
  writeFileSync(path, bytes);
  chmodSync(path, 0o620);
  expect(openPrivateFile(path, "read", { tighten: true })).toEqual({ foreign: "can be written by others" });
  chmodSync(path, 0o644);
  expect(readPrivateFile(path, 100)).toEqual({ foreign: "can be read by others" });
  expect(statSync(path).mode & 0o777).toBe(0o644);
  expect(readPrivateFile(path, 100, { tighten: true })).toEqual(bytes);
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test("a file with a second name is foreign to whoever means to write it", () => {
  const folder = temporaryDirectory();
  const [victim, path] = [join(folder, "victim"), join(folder, "lock")];
  writeFileSync(victim, bytes, { mode: 0o600 });
  linkSync(victim, path);
  expect(openOrCreatePrivateFile(path, { names: "one" })).toEqual({ foreign: "has 2 names" });
  expect(readPrivateFile(path, 100)).toEqual(bytes);
});

test("replacing a file takes its name and writes through nothing", async () => {
  const folder = temporaryDirectory();
  const [victim, path] = [join(folder, "victim"), join(folder, "file")];
  writeFileSync(victim, bytes, { mode: 0o600 });
  const atOnce = async (to: string, given: Uint8Array) => replaceSmallPrivateFile(to, given);
  for (const replace of [replacePrivateFile, atOnce]) {
    symlinkSync(victim, path);
    await replace(path, Buffer.from("new"));
    expect(lstatSync(path).isFile()).toBe(true);
    expect(readFileSync(path, "utf8")).toBe("new");
    await replace(path, Buffer.from("newer"));
    expect(readPrivateFile(path, 100)).toEqual(Buffer.from("newer"));
    expect(readFileSync(victim)).toEqual(bytes);
    execFileSync("rm", [path]);
  }
  mkdirSync(path);
  await expect(replacePrivateFile(path, bytes)).rejects.toThrow(/EISDIR|EEXIST/);
  expect(() => replaceSmallPrivateFile(path, bytes)).toThrow(/EISDIR|EEXIST/);
  expect(readdirSync(folder).sort()).toEqual(["file", "victim"]);
});

test("what a killed replacement left goes, and nothing else does", () => {
  const folder = temporaryDirectory();
  for (const name of ["weights.json.0123456789abcdef.new", "weights.json", "mine.new"])
    writeFileSync(join(folder, name), bytes);
  mkdirSync(join(folder, "hits.0123456789abcdef.new"));
  removeUnfinished(folder);
  expect(readdirSync(folder).sort()).toEqual(["hits.0123456789abcdef.new", "mine.new", "weights.json"]);
});

test("nothing that another user plants is opened, or touched", (context) => {
  needsAnotherUser(context);
  const folder = sharedFolder();
  const victim = join(privateFolder(), "victim");
  writeFileSync(victim, bytes, { mode: 0o600 });
  for (const [name, plant] of Object.entries(plants)) {
    const path = join(folder, name.replaceAll(" ", "-"));
    plant(path, victim);
    const before = lstatSync(path);
    expect(openPrivateFile(path, "read"), name).toMatchObject({ foreign: expect.any(String) as string });
    expect(openOrCreatePrivateFile(path), name).toMatchObject({ foreign: expect.any(String) as string });
    expect(() => createPrivateFile(path), name).toThrow("EEXIST");
    expect(lstatSync(path)).toMatchObject({ ino: before.ino, size: before.size, uid: before.uid });
    expect(readFileSync(victim)).toEqual(bytes);
  }
});

test("another user cannot open what was made", (context) => {
  needsAnotherUser(context);
  const path = join(sharedFolder(), "file");
  closeSync(createPrivateFile(path));
  const attempt = "try { fs.openSync(argument, 'r') } catch (error) { console.log(error.code) }";
  expect(asOther(attempt, path).trim()).toBe("EACCES");
});
