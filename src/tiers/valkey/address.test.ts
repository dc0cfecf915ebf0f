import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { parseValkeyAddress } from "./address.ts";

test("one server, with what is left out", () => {
  expect(parseValkeyAddress("valkey://cache.example")).toEqual({
    kind: "one",
    hosts: [{ host: "cache.example", port: 6379 }],
    primary: "",
    db: 0,
    username: undefined,
    password: undefined,
    tls: undefined,
    ttlSeconds: 7 * 86_400,
    maxBytes: undefined,
    maxTenantBytes: undefined,
    prefix: "reprise:",
    connections: 4,
    compress: "none",
  });
});

test("everything that can be said", () => {
  const folder = temporaryDirectory();
  writeFileSync(join(folder, "ca.pem"), "a certificate");
  const more = "?ttl=12h&max=10GiB&max-per-tenant=1GiB&prefix=a/b:&connections=8&compress=lossless";
  expect(parseValkeyAddress(`rediss://us%40er:p%3Aa:b@[::1]:7000/3${more}&ca=${join(folder, "ca.pem")}`)).toEqual({
    kind: "one",
    hosts: [{ host: "::1", port: 7000 }],
    primary: "",
    db: 3,
    username: "us@er",
    password: "p:a:b",
    tls: { ca: Buffer.from("a certificate") },
    ttlSeconds: 43_200,
    maxBytes: 10 * 2 ** 30,
    maxTenantBytes: 2 ** 30,
    prefix: "a/b:",
    connections: 8,
    compress: "lossless",
  });
});

test("sentinels and clusters have several hosts; a password may lie in a file", () => {
  const file = join(temporaryDirectory(), "password");
  writeFileSync(file, "secret\n", { mode: 0o600 });
  expect(
    parseValkeyAddress(`valkey+sentinel://a,b:5/mymaster/2?password-file=${file.replaceAll("/", "%2F")}`),
  ).toMatchObject({
    kind: "sentinel",
    hosts: [
      { host: "a", port: 26_379 },
      { host: "b", port: 5 },
    ],
    primary: "mymaster",
    db: 2,
  });
  expect(parseValkeyAddress(`valkeys+cluster://user@a:1,b:2?password-file=${file}`)).toMatchObject({
    kind: "cluster",
    username: "user",
    password: "secret",
    tls: { ca: undefined },
  });
});

test.each([
  ["valkey:/host", /must look like/],
  ["valkey://", /must look like/],
  ["valkey://a,b", /several hosts need/],
  ["valkey://a:99999", /"a:99999" is no host and port/],
  ["valkey://a b", /"a b" is no host/],
  ["valkey+sentinel://a", /the primary's name must follow/],
  ["valkey+cluster://a/1", /database 0 only/],
  ["valkey://a/x", /"\/x" is no database/],
  ["valkey://a?tls=1", /no parameter "tls"; there are: ttl,/],
  ["valkey://a?ca=x", /ca is for TLS/],
  ["valkeys://a?ca=/nope", /ca \/nope cannot be read/],
  ["valkey://a?ttl=5", /ttl "5" is no time/],
  ["valkey://a?ttl=10s", /of a minute or more/],
  ["valkey://a?max=much", /max: "much" is not a size/],
  ["valkey://a?prefix=a%20b", /prefix "a b" may have/],
  ["valkey://a?connections=0", /connections "0"/],
  ["valkey://a?compress=zstd", /compress "zstd" is none of: none, lossless/],
  ["valkey://a?ttl=1d&prefix=b:&ttl=1d", /ttl is given twice/],
  ["valkey://u:secret@a?password-file=/nope", /give one/],
  ["valkey://a?password-file=/nope", /no such file/],
  ["valkey://u%zz:secret@a", /a % in it/],
])("%s is refused, and its password is in no message", (address, fault) => {
  expect(() => parseValkeyAddress(address)).toThrow(fault);
  expect(() => parseValkeyAddress(address)).toThrow(expect.objectContaining({ code: "BAD_CONFIG" }) as Error);
  try {
    parseValkeyAddress(address);
  } catch (error) {
    expect(String(error)).not.toContain("secret");
  }
});
