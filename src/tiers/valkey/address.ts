/**
 * Where a Valkey or Redis is, as `--tier` says it.
 *
 *     valkey://[USER[:PASSWORD]@]HOST[:PORT][/DB][?…]                 one server          redis:// means the same
 *     valkey+sentinel://[…@]HOST[:PORT],HOST…/NAME[/DB][?…]           whoever is NAME's primary
 *     valkey+cluster://[…@]HOST[:PORT],HOST…[?…]                      a cluster, found by any of its nodes
 *     valkeys://, valkeys+sentinel://, valkeys+cluster://             the same over TLS   rediss://
 *
 * After a question mark: `ttl`, `max`, `max-per-tenant`, `prefix`, `ca`, `password-file`, `connections`, `compress`.
 */
import { RepriseError } from "../../errors.ts";
import { readPrivateFile } from "../../private-files.ts";
import { certificateIn, compressionOf, connectionsOf, parametersOf, sizeOf, ttlOf } from "../shared/parameters.ts";
import type { Compression } from "../shared/payloads.ts";

export interface ValkeyAddress {
  readonly kind: "one" | "sentinel" | "cluster";
  readonly hosts: readonly { readonly host: string; readonly port: number }[];
  /** What sentinels call the primary; "" for the other kinds. */
  readonly primary: string;
  readonly db: number;
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** Undefined: no TLS. */
  readonly tls: { readonly ca: Buffer | undefined } | undefined;
  /** How long a record is kept. */
  readonly ttlSeconds: number;
  /** Of all that hosts with this prefix have written and that has not ended its time; undefined: the store's own limit. */
  readonly maxBytes: number | undefined;
  /** The same of one tenant. */
  readonly maxTenantBytes: number | undefined;
  readonly prefix: string;
  /** To a server, for reading; as many more write. */
  readonly connections: number;
  readonly compress: Compression;
}

const pattern = /^(valkeys?|rediss?)(\+sentinel|\+cluster)?:\/\/(?:([^@/?]*)@)?([^/?]+)(\/[^?]*)?(?:\?(.*))?$/;
const known = ["ttl", "max", "max-per-tenant", "prefix", "ca", "password-file", "connections", "compress"];
export function isValkeyAddress(text: string): boolean {
  return /^(valkeys?|rediss?)(\+\w*)?:/.test(text);
}

/** @throws RepriseError BAD_CONFIG. A password is in no message. */
export function parseValkeyAddress(text: string): ValkeyAddress {
  const match = pattern.exec(text);
  if (match === null) throw fault("it must look like valkey://HOST:PORT, with +sentinel or +cluster behind the scheme");
  const [, scheme, suffix, login, hostList, path = "", query = ""] = match;
  const kind = suffix === "+sentinel" ? "sentinel" : suffix === "+cluster" ? "cluster" : "one";
  const hosts = hostList!.split(",").map((each) => hostOf(each, kind)); // the pattern has it
  if (kind === "one" && hosts.length > 1) throw fault("several hosts need valkey+sentinel:// or valkey+cluster://");
  const names = path.split("/").slice(1).map(decoded);
  const primary = kind === "sentinel" ? names.shift() : "";
  if (primary === undefined || (kind === "sentinel" && primary === ""))
    throw fault("behind the sentinels' hosts the primary's name must follow: valkey+sentinel://HOST:26379/mymaster");
  const more = parametersOf(query, known, fault);
  const [username, ...rest] = login === undefined ? [] : login.split(":");
  const isSecure = scheme!.endsWith("s"); // the pattern has it
  const ca = more.get("ca");
  if (!isSecure && ca !== undefined) throw fault("ca is for TLS: valkeys://");
  return {
    kind,
    hosts,
    primary,
    db: dbOf(names, kind),
    username: username === undefined || username === "" ? undefined : decoded(username),
    password: passwordOf(rest.length === 0 ? undefined : decoded(rest.join(":")), more.get("password-file")),
    tls: isSecure ? { ca: ca === undefined ? undefined : certificateIn(ca, fault) } : undefined,
    ttlSeconds: ttlOf(more.get("ttl") ?? "7d", { seconds: 60, words: "a minute" }, fault),
    maxBytes: sizeOf("max", more.get("max"), fault),
    maxTenantBytes: sizeOf("max-per-tenant", more.get("max-per-tenant"), fault),
    prefix: prefixOf(more.get("prefix") ?? "reprise:"),
    connections: connectionsOf(more.get("connections") ?? "4", 32, fault),
    compress: compressionOf(more.get("compress") ?? "none", fault),
  };
}

function hostOf(text: string, kind: ValkeyAddress["kind"]): { host: string; port: number } {
  const [, host, port] = /^(\[[\da-fA-F:]+\]|[\w.-]+)(?::(\d+))?$/.exec(text) ?? [];
  const number = port === undefined ? (kind === "sentinel" ? 26_379 : 6379) : Number(port);
  if (host === undefined || number < 1 || number > 65_535) throw fault(`"${text}" is no host and port`);
  return { host: host.replace(/^\[|\]$/g, ""), port: number };
}

function dbOf([given, ...more]: readonly string[], kind: ValkeyAddress["kind"]): number {
  if (given === undefined || given === "") return 0;
  if (!/^\d{1,4}$/.test(given) || more.length > 0)
    throw fault(`"/${[given, ...more].join("/")}" is no database number`);
  if (kind === "cluster" && Number(given) !== 0) throw fault("a cluster has database 0 only");
  return Number(given);
}

function passwordOf(typed: string | undefined, file: string | undefined): string | undefined {
  if (file === undefined) return typed;
  if (typed !== undefined) throw fault("a password and a password-file are given: give one");
  const found = readPrivateFile(file, 4096);
  if (found === "absent") throw fault(`password-file ${file}: there is no such file`);
  if (!(found instanceof Uint8Array)) throw fault(`password-file ${file} ${found.foreign}`);
  return found.toString("utf8").replace(/\r?\n$/, "");
}

function prefixOf(text: string): string {
  if (/^[\w:./-]{1,64}$/.test(text)) return text;
  throw fault(`prefix "${text}" may have up to 64 letters, digits and :./-_`);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw fault("a % in it is not followed by two hexadecimal digits");
  }
}

function fault(why: string): RepriseError {
  return new RepriseError("BAD_CONFIG", `--tier valkey://…: ${why}`);
}
