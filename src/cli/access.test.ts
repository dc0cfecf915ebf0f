import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { hostsAllowedBy, mustBePrivate, mustKnowPages, readKeys } from "./access.ts";

const none = { apiKey: [], apiKeyFile: [], adminKey: [], adminKeyFile: [] };

function keyFile(...keys: string[]): string {
  const path = join(mkdtempSync(join(tmpdir(), "reprise-access-")), "keys");
  writeFileSync(path, keys.join("\n"), { mode: 0o600 });
  return path;
}

test("keys that are typed and keys in files count alike, each once", () => {
  const apiKeyFile = [keyFile("from-a-file", "typed-too"), keyFile("another-file")];
  expect(readKeys({ ...none, apiKey: ["typed-too"], apiKeyFile, adminKeyFile: [keyFile("for-the-admin")] })).toEqual({
    apiKeys: ["typed-too", "from-a-file", "another-file"],
    adminKeys: ["for-the-admin"],
  });
});

test("every file's faults are told in one error, with the file", () => {
  const bad = keyFile("short", "also");
  expect(() => readKeys({ ...none, apiKeyFile: ["/nonexistent", bad], adminKeyFile: [keyFile()] })).toThrow(
    expect.objectContaining({
      code: "BAD_CONFIG",
      message: expect.stringMatching(
        /^--api-key-file \/nonexistent: ENOENT.*\n--api-key-file .*: line 1: .*\n--api-key-file .*: line 2: .*\n--admin-key-file .*: there is no key in it$/,
      ) as unknown,
    }),
  );
});

test("no key is a tenant's and the admin's; a thousand are the most", () => {
  expect(() => readKeys({ ...none, apiKey: ["the-same-key"], adminKey: ["the-same-key"] })).toThrow("make two");
  const apiKey = Array.from({ length: 1000 }, (_, index) => `key-number-${index}`);
  expect(readKeys({ ...none, apiKey }).apiKeys).toHaveLength(1000);
  expect(() => readKeys({ ...none, apiKey, adminKey: ["one-more-key"] })).toThrow(
    "1001 keys are given; 1000 is the most",
  );
});

test("what strangers can reach needs a key; what only this machine reaches answers to its own names", () => {
  for (const host of ["0.0.0.0", "::", "192.168.0.2", "127.0.0.1.example", "localhost.example"]) {
    expect(() => mustBePrivate(host, [], "api-key")).toThrow("--api-key-file");
    expect(() => mustBePrivate(host, [], "admin-key")).toThrow("--admin-key-file");
    expect(() => mustBePrivate(host, ["long-enough"], "api-key")).not.toThrow();
    expect(hostsAllowedBy({ host, allowedHost: [] }, [])).toEqual({});
  }
  expect(() => mustBePrivate("127.0.0.1", [], "api-key")).not.toThrow();
});

test("on loopback without keys a server answers to loopback's names and to those that were given", () => {
  const { allowedHosts } = hostsAllowedBy({ host: "127.0.0.1", allowedHost: ["proxy.example"] }, []);
  expect(allowedHosts).toEqual(expect.arrayContaining(["localhost", "127.0.0.1", "[::1]", "proxy.example"]));
  expect(allowedHosts).not.toContain("evil.example");
  expect(hostsAllowedBy({ host: "127.0.0.5", allowedHost: [] }, []).allowedHosts).toContain("127.0.0.5");
});

test("with keys it answers to any name: who asks must have a key anyway", () => {
  expect(hostsAllowedBy({ host: "127.0.0.1", allowedHost: [] }, ["long-enough"])).toEqual({});
});

test("not all web pages get in without a key", () => {
  expect(() => mustKnowPages(["https://a.example", "*"], [])).toThrow("--api-key");
  expect(() => mustKnowPages(["*"], ["long-enough"])).not.toThrow();
  expect(() => mustKnowPages(["https://a.example"], [])).not.toThrow();
});
