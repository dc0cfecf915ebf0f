import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { makeCertificate } from "../../../test/support/valkey.ts";
import { parsePeerAddress } from "./address.ts";

const temporary = temporaryFolder();
afterAll(() => temporary[Symbol.dispose]());
const folder = temporary.path;
const { certificate } = makeCertificate(folder);
const tokenFile = join(folder, "token");
writeFileSync(tokenFile, "0123456789abcdef\n", { mode: 0o600 });
const pin = "ab".repeat(32);

test("another machine by its certificate and a token, and this one as it is", () => {
  expect(parsePeerAddress(`peer://b.example:7000?ca=${certificate}&token-file=${tokenFile}`)).toMatchObject({
    host: "b.example",
    port: 7000,
    tls: { ca: expect.any(Buffer) as Buffer },
    token: "0123456789abcdef",
  });
  const colons = pin.toUpperCase().replaceAll(/(..)(?=.)/g, "$1:");
  expect(parsePeerAddress(`peer://[2001:db8::1]:7000/?pin=${colons}&token-file=${tokenFile}`)).toMatchObject({
    host: "2001:db8::1",
    tls: { pin },
  });
  expect(parsePeerAddress("peer://127.0.0.1:7000")).toMatchObject({ compress: "none" });
  expect(parsePeerAddress("peer://127.0.0.1:7000?compress=lossless")).toMatchObject({ compress: "lossless" });
  for (const host of ["127.0.0.1", "localhost", "[::1]"])
    expect(parsePeerAddress(`peer://${host}:7000`)).toMatchObject({ tls: undefined, token: "" });
});

test("what would be read by strangers, or cannot be meant, is refused", () => {
  const refused = (address: string) => expect(() => parsePeerAddress(address), address);
  const both = /over TLS and with a token only/;
  refused("peer://10.0.0.1:7000").toThrow(both);
  refused(`peer://10.0.0.1:7000?token-file=${tokenFile}`).toThrow(both);
  refused(`peer://10.0.0.1:7000?pin=${pin}`).toThrow(both);
  refused(`peer://127.0.0.1.example:7000`).toThrow(both);
  refused("peer://127.0.0.1:7000?compress=much").toThrow(/compress "much" is none of: none, lossless/);
  refused("peer://10.0.0.1").toThrow(/must look like/);
  refused("peer://10.0.0.1:0").toThrow(/must look like/);
  refused("peer://user:secret@10.0.0.1:7000").toThrow(/must look like/);
  refused("peer://127.0.0.1:7000?pin=abc").toThrow(/64 hexadecimal digits/);
  refused(`peer://127.0.0.1:7000?pin=${pin}&ca=${certificate}`).toThrow(/give one/);
  refused("peer://127.0.0.1:7000?tls=no").toThrow(/no parameter "tls"/);
  refused(`peer://127.0.0.1:7000?pin=${pin}&pin=${pin}`).toThrow(/twice/);
  refused("peer://127.0.0.1:7000?ca=/nowhere").toThrow(/cannot be read/);
  refused("peer://127.0.0.1:7000?token-file=/nowhere").toThrow(/no such file/);
});

test("a token file that others can read, or that has no token, is refused", () => {
  const path = join(folder, "other");
  const tokenOf = (text: string, mode = 0o600) => {
    writeFileSync(path, text);
    chmodSync(path, mode);
    return () => parsePeerAddress(`peer://127.0.0.1:7000?token-file=${path}`);
  };
  expect(tokenOf("0123456789abcdef", 0o644)).toThrow(/can be read by others/);
  for (const text of ["", "short", "two words of a token", "0123456789abcdef\n0123456789abcdef"])
    expect(tokenOf(text)).toThrow(/one line of 16 or more/);
});
