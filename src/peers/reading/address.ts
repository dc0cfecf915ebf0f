/**
 * Where another host's cache is, as `--tier` says it.
 *
 *     peer://HOST:PORT?ca=FILE&token-file=FILE         over TLS; the certificate is signed by that one, or is it
 *     peer://HOST:PORT?pin=SHA256&token-file=FILE      over TLS; the certificate is that one
 *     peer://127.0.0.1:PORT                            on this machine, as it is
 *
 * With `compress=lossless` the host is asked to pack what it sends.
 */
import { readFileSync } from "node:fs";
import { describe, RepriseError } from "../../errors.ts";
import { isLoopback } from "../../loopback.ts";
import { compressionOf, parametersOf } from "../../tiers/shared/parameters.ts";
import type { Compression } from "../../tiers/shared/payloads.ts";
import { readToken } from "../token-file.ts";

export interface PeerAddress {
  readonly host: string;
  readonly port: number;
  /** Undefined: no TLS. */
  readonly tls: { readonly ca: Buffer } | { readonly pin: string } | undefined;
  /** "" when there is none. */
  readonly token: string;
  /** What the host is asked to do with payloads: "none" unless given. */
  readonly compress?: Compression;
}

const pattern = /^peer:\/\/(\[[\da-fA-F:]+\]|[\w.-]+):(\d{1,5})\/?(?:\?(.*))?$/;
const known = ["ca", "pin", "token-file", "compress"];

export function isPeerAddress(text: string): boolean {
  return text.startsWith("peer:");
}

/** @throws RepriseError BAD_CONFIG */
export function parsePeerAddress(text: string): PeerAddress {
  const [, bracketed, port, query = ""] = pattern.exec(text) ?? [];
  if (bracketed === undefined || !(Number(port) >= 1 && Number(port) <= 65_535))
    throw fault("", "it must look like peer://HOST:PORT, with ?ca=FILE&token-file=FILE behind it");
  const host = bracketed.replace(/^\[|\]$/g, "");
  const where = `${bracketed}:${port}`;
  const more = parametersOf(query, known, (why) => fault(where, why));
  const [ca, pin, tokenFile, compression = "none"] = known.map((name) => more.get(name));
  if (ca !== undefined && pin !== undefined) throw fault(where, "ca and pin are given: give one");
  const tls =
    ca !== undefined ? { ca: certificateIn(where, ca) } : pin === undefined ? undefined : { pin: digestOf(where, pin) };
  if (!isLoopback(host) && (tls === undefined || tokenFile === undefined))
    throw fault(
      where,
      "another machine is read over TLS and with a token only: give ca=FILE or pin=SHA256, and token-file=FILE",
    );
  const token = tokenFile === undefined ? "" : readToken(tokenFile, `--tier peer://${where}: token-file`);
  const compress = compressionOf(compression, (why) => fault(where, why));
  return { host, port: Number(port), tls, token, compress };
}

function certificateIn(where: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fault(where, `ca ${path} cannot be read: ${describe(error)}`);
  }
}

function digestOf(where: string, text: string): string {
  const digits = text.replaceAll(":", "").toLowerCase();
  if (/^[\da-f]{64}$/.test(digits)) return digits;
  throw fault(
    where,
    "pin must be the SHA-256 of a certificate, 64 hexadecimal digits: `openssl x509 -noout -fingerprint -sha256 -in FILE` shows it",
  );
}

function fault(where: string, why: string): RepriseError {
  return new RepriseError("BAD_CONFIG", `--tier peer://${where === "" ? "…" : where}: ${why}`);
}
