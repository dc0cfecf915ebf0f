import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { temporaryDirectory } from "../test/support/data-directory.ts";
import { asOther, folderOfOther, needsAnotherUser, otherUser, sharedFolder } from "../test/support/other-user.ts";
import { describe } from "./errors.ts";
import { checkPrivateDirectory, makePrivateDirectory } from "./private-directory.ts";

function make(path: string) {
  return makePrivateDirectory(path, "the data directory");
}

test("a directory is made with all that leads to it, 0700, also in a sticky folder", async () => {
  const folder = sharedFolder();
  const path = join(folder, "a", "b", "c");
  expect(await make(path)).toEqual({ path, warnings: [] });
  expect(statSync(join(folder, "a")).mode & 0o777).toBe(0o700);
  expect(statSync(path).mode & 0o777).toBe(0o700);
  expect(await make(path)).toEqual({ path, warnings: [] });
  await expect(checkPrivateDirectory(join(path, "d"), "DIR")).rejects.toMatchObject({ code: "BAD_CONFIG" });
  expect(readdirSync(path)).toEqual([]);
});

test("a directory that others can write is refused, with the command that helps", async () => {
  const path = join(temporaryDirectory(), "data");
  mkdirSync(path);
  for (const mode of [0o777, 0o702, 0o1777]) {
    chmodSync(path, mode);
    await expect(make(path)).rejects.toThrow(/^the data directory .* cannot be used: it can be written by others; /);
  }
  chmodSync(path, 0o702);
  await expect(make(path)).rejects.toThrow(`run chmod go-w ${path}, or give another`);
});

test("a folder on the way that others can write is refused unless it is sticky", async () => {
  const folder = temporaryDirectory();
  chmodSync(folder, 0o777);
  await expect(make(join(folder, "data"))).rejects.toThrow(`${folder}, where it lies, can be written by others`);
  expect(readdirSync(folder)).toEqual([]);
  chmodSync(folder, 0o1777);
  await make(join(folder, "data"));
});

test("a group's directory is ours when nobody else is in the group", async (context) => {
  needsAnotherUser(context);
  const path = join(temporaryDirectory(), "data");
  mkdirSync(path);
  chmodSync(path, 0o770);
  await make(path); // root's own group, as it is made here
  for (const gid of [otherUser.gid, 3_999_999]) {
    chownSync(path, 0, gid);
    await expect(make(path)).rejects.toThrow(`can be written by others of group ${gid}`);
  }
  const groups = process.getgroups!(); // there is a root, so there are groups
  onTestFinished(() => process.setgroups!(groups));
  process.setgroups!([...groups, otherUser.gid, 3_999_999]);
  await make(path); // a group that was given to us and has no name, as Kubernetes gives them
  chownSync(path, 0, otherUser.gid);
  await expect(make(path)).rejects.toThrow("can be written by others of group");
});

test("links are followed where they are ours, and a loop or a file is refused in one line", async () => {
  const folder = temporaryDirectory();
  mkdirSync(join(folder, "real"), { mode: 0o700 });
  symlinkSync("real", join(folder, "link"));
  symlinkSync(join(folder, "loop"), join(folder, "loop"));
  writeFileSync(join(folder, "file"), "");
  expect(await make(join(folder, "link", "..", "link", "data"))).toMatchObject({ path: join(folder, "real", "data") });
  for (const [name, words] of [
    ["loop", "more than 40 links"],
    ["file", "is a file, not a directory"],
    ["file/below", "is a file, not a directory"],
    ["x".repeat(300), "ENAMETOOLONG"],
  ] as const)
    expect(describe(await make(join(folder, name)).catch((error: unknown) => error))).toContain(words);
});

test("on a special file system it ends at once, in one line", async () => {
  for (const path of ["/proc/reprise", "/proc/self/reprise/data", "/sys/reprise/data", "/dev/null/data"]) {
    const refusal: unknown = await make(path).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: "BAD_CONFIG" });
    expect(describe(refusal)).not.toContain("\n");
  }
});

test("a mounted volume that everybody may write may be on the way, with a warning, and is no data directory itself", async (context) => {
  const volume = join(temporaryDirectory(), "volume");
  mkdirSync(volume);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", volume], { stdio: "ignore" });
  } catch {
    context.skip("needs the right to mount file systems");
  }
  onTestFinished(() => void execFileSync("umount", [volume]));
  expect(await make(join(volume, "data"))).toEqual({
    path: join(volume, "data"),
    warnings: [expect.stringContaining(`in a volume that everybody may write (${volume})`)],
  });
  await expect(make(volume)).rejects.toThrow("can be written by others");
});

test("another user's directory is refused, also on the way, and so are links of others", async (context) => {
  needsAnotherUser(context);
  const theirs = folderOfOther();
  await expect(make(theirs)).rejects.toThrow(`it belongs to user ${otherUser.uid}; give one of your own`);
  await expect(make(join(theirs, "data"))).rejects.toThrow(`belongs to user ${otherUser.uid}`);
  const folder = sharedFolder();
  const ours = temporaryDirectory();
  asOther(`fs.symlinkSync(${JSON.stringify(ours)}, argument)`, join(folder, "link"));
  await expect(make(join(folder, "link"))).rejects.toThrow(`is a link of user ${otherUser.uid}`);
  expect(readdirSync(ours)).toEqual([]);
});
