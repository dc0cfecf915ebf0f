/**
 * Where another host's cache is, as `--tier` says it.
 *
 *     peer://HOST:PORT?ca=FILE&token-file=FILE         over TLS; the certificate is signed by that one, or is it
 *     peer://HOST:PORT?pin=SHA256&token-file=FILE      over TLS; the certificate is that one
 *     peer://127.0.0.1:PORT                            on this machine, as it is
 */
import { readFileSync } from "node:fs";
import { describe, RepriseError } from "../../errors.ts";
import { isLoopback } from "../../loopback.ts";
import { readToken } from "../token-file.ts";

export interface PeerAddress {
  readonly host: string;
  readonly port: number;
  /** Undefined: no TLS. */
  readonly tls: { readonly ca: Buffer } | { readonly pin: string } | undefined;
  /** "" when there is none. */
  readonly token: string;
}

const pattern = /^peer:\/\/(\[[\da-fA-F:]+\]|[\w.-]+):(\d{1,5})\/?(?:\?(.*))?$/;
const known = ["ca", "pin", "token-file"];

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
  const more = new URLSearchParams(query);
  const odd = [...more.keys()].find((name, i, all) => !known.includes(name) || all.indexOf(name) < i);
  if (odd !== undefined)
    throw fault(where, `there is no parameter "${odd}", or it is given twice; there are: ${known.join(", ")}`);
  const [ca, pin, tokenFile] = known.map((name) => more.get(name) ?? undefined);
  if (ca !== undefined && pin !== undefined) throw fault(where, "ca and pin are given: give one");
  const tls =
    ca !== undefined ? { ca: certificateIn(where, ca) } : pin === undefined ? undefined : { pin: digestOf(where, pin) };
  if (!isLoopback(host) && (tls === undefined || tokenFile === undefined))
    throw fault(
      where,
      "another machine is read over TLS and with a token only: give ca=FILE or pin=SHA256, and token-file=FILE",
    );
  const token = tokenFile === undefined ? "" : readToken(tokenFile, `--tier peer://${where}: token-file`);
  return { host, port: Number(port), tls, token };
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
