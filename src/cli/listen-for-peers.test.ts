import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../test/support/data-directory.ts";
import { makeCertificate } from "../../test/support/valkey.ts";
import { readListening } from "./listen-for-peers.ts";

test("strangers can read only with a certificate and a token; this machine as it is", () => {
  const folder = temporaryDirectory();
  const { key: listenKey, certificate: listenCert } = makeCertificate(folder);
  const tokenFile = join(folder, "token");
  writeFileSync(tokenFile, "0123456789abcdef", { mode: 0o600 });
  chmodSync(listenKey, 0o600);
  const all = { listen: "0.0.0.0:7000", listenCert, listenKey, tokenFile };
  expect(readListening({})).toBeUndefined();
  expect(readListening({ listen: "127.0.0.1:0" })).toMatchObject({ host: "127.0.0.1", port: 0, tls: undefined });
  expect(readListening(all)).toMatchObject({ host: "0.0.0.0", port: 7000, token: "0123456789abcdef" });
  expect(readListening({ ...all, listenCompress: "none" })).toMatchObject({ compress: "none" });
  expect(readListening({ ...all, listen: "[::1]:7000" })).toMatchObject({ host: "::1" });
  const refused = (config: Parameters<typeof readListening>[0]) => expect(() => readListening(config));
  for (const missing of ["listenCert", "listenKey", "tokenFile"] as const)
    refused({ ...all, [missing]: "" }).toThrow(/give|given together/);
  refused({ listen: "0.0.0.0:7000" }).toThrow(/can be reached from other machines/);
  refused({ ...all, listen: "" }).toThrow(/say where to listen/);
  refused({ listenCompress: "none" }).toThrow(/say where to listen/);
  refused({ ...all, listenCert: "/nowhere" }).toThrow(/--listen-cert \/nowhere cannot be read/);
  refused({ ...all, listenKey: "/nowhere" }).toThrow(/no such file/);
  chmodSync(listenKey, 0o644);
  refused(all).toThrow(/can be read by others/);
});
