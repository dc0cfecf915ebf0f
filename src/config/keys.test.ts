import { chmodSync, chownSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkKey, isMountedSecret, readKeyFile } from "./keys.ts";

function keyFile(text: string, mode = 0o600): string {
  const path = join(mkdtempSync(join(tmpdir(), "reprise-keys-")), "keys");
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

test("keys of a file are its lines; comments, empty lines, a mark at its beginning and Windows' line ends are none", () => {
  expect(readKeyFile(keyFile("\uFEFF# for the tests\r\nfirst-key\r\n\r\n  second-key#1  \n# third-key"))).toEqual([
    "first-key",
    "second-key#1",
  ]);
});

test.each([
  ["", "there is no key in it"],
  ["# only this\n\n", "there is no key in it"],
  ["long-enough\nshort\n", "line 2: a key must have 8 to 256 characters; this one has 5"],
  ["two words-in-one\n", "line 1: .*without spaces"],
  ["a,comma,in,it", "line 1: .*commas"],
  ["x".repeat(257), "line 1: .*this one has 257"],
])("%j is no file of keys", (text, fault) => {
  expect(() => readKeyFile(keyFile(text))).toThrow(new RegExp(fault));
});

test("a key is never in a message", () => {
  for (const key of ["sesame", "sesame,sesame", "sesame sesame", "sésame-sesame", "sesame".repeat(50)]) {
    const silent = expect.objectContaining({ message: expect.not.stringContaining("sesame") as unknown });
    expect(() => checkKey(key)).toThrow(silent);
    expect(() => readKeyFile(keyFile(key))).toThrow(silent);
  }
});

test("a file that others can read or change is refused; its group may read it", () => {
  for (const mode of [0o644, 0o604, 0o620, 0o602, 0o660, 0o601])
    expect(() => readKeyFile(keyFile("long-enough", mode))).toThrow(
      `others can read or change it (mode 0${mode.toString(8)}): chmod 600 it`,
    );
  for (const mode of [0o600, 0o400, 0o440, 0o640]) expect(readKeyFile(keyFile("long-enough", mode))).toHaveLength(1);
});

test.runIf(process.getuid?.() === 0)("another user's file is refused, as its owner can change it", () => {
  const path = keyFile("long-enough");
  chownSync(path, 12_345, 0);
  expect(() => readKeyFile(path)).toThrow("it belongs to another user (12345)");
});

test("links are followed, and what they lead to is looked at", () => {
  const folder = mkdtempSync(join(tmpdir(), "reprise-keys-"));
  mkdirSync(join(folder, "..2026_11_29"));
  writeFileSync(join(folder, "..2026_11_29", "keys"), "long-enough", { mode: 0o400 });
  symlinkSync("..2026_11_29", join(folder, "..data"));
  symlinkSync(join("..data", "keys"), join(folder, "keys"));
  expect(readKeyFile(join(folder, "keys"))).toEqual(["long-enough"]);
  chmodSync(join(folder, "..2026_11_29", "keys"), 0o644);
  expect(() => readKeyFile(join(folder, "keys"))).toThrow("others can read");
});

test("what a container was given as a secret may have any mode: a tmpfs or a single file, mounted read-only", () => {
  const table = [
    "22 1 0:21 / / rw,relatime - overlay overlay rw",
    "23 22 0:22 / /etc/reprise ro,relatime - tmpfs tmpfs rw,size=64k",
    "24 22 0:23 / /run/secrets/keys ro,relatime - ext4 /dev/vda1 rw",
    "25 22 0:24 / /tmp rw - tmpfs tmpfs rw",
    "26 22 0:25 / /media/cd ro - iso9660 /dev/sr0 ro",
    "27 22 0:26 / /with\\040space ro - tmpfs tmpfs rw",
    "28 23 0:27 / /etc/reprise/later rw - tmpfs tmpfs rw",
  ].join("\n");
  for (const path of ["/etc/reprise/..2026/keys", "/run/secrets/keys", "/with space/keys"])
    expect(isMountedSecret(path, table), path).toBe(true);
  for (const path of [
    "/home/me/keys",
    "/tmp/keys",
    "/media/cd/keys",
    "/etc/reprise-too/keys",
    "/etc/reprise/later/keys",
  ])
    expect(isMountedSecret(path, table), path).toBe(false);
  expect(isMountedSecret("/etc/reprise/keys", "")).toBe(false);
});
