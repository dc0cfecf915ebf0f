/**
 * Where a pool of Mooncake Store is, as `--tier` says it.
 *
 *     mooncake://MASTER[:PORT][?…]
 *
 * After a question mark: `python`, `prefix`, `protocol`, `device`, `metadata`, `host`, `segment`, `compress`.
 */
import { accessSync, constants } from "node:fs";
import { resolve } from "node:path";
import { RepriseError } from "../../errors.ts";
import { compressionOf, parametersOf, sizeOf } from "../shared/parameters.ts";
import type { Compression } from "../shared/payloads.ts";

export interface MooncakeAddress {
  /** HOST:PORT */
  readonly master: string;
  /** A program, by its path or as the PATH has it, that has Mooncake's wheel. */
  readonly python: string;
  readonly prefix: string;
  readonly protocol: "tcp" | "rdma";
  /** RDMA devices, separated by commas; "": Mooncake chooses. */
  readonly device: string;
  /** Where Mooncake's clients find each other. */
  readonly metadata: string;
  /** Under which name they reach this host; "": the address that the master sees. */
  readonly host: string;
  /** Memory that this host gives to the pool. */
  readonly segmentBytes: number;
  readonly compress: Compression;
}

const known = ["python", "prefix", "protocol", "device", "metadata", "host", "segment", "compress"];

export function isMooncakeAddress(text: string): boolean {
  return text.startsWith("mooncake:");
}

/** @param python which one it is unless the address says so. @throws RepriseError BAD_CONFIG */
export function parseMooncakeAddress(text: string, python = "python3"): MooncakeAddress {
  const [, host, port = "50051", query = ""] =
    /^mooncake:\/\/(\[[\da-fA-F:]+\]|[\w.-]+)(?::(\d{1,5}))?\/?(?:\?(.*))?$/.exec(text) ?? [];
  if (host === undefined || Number(port) < 1 || Number(port) > 65_535)
    throw fault("it must look like mooncake://MASTER:50051");
  const more = parametersOf(query, known, fault);
  const shaped = (name: string, pattern: RegExp, what: string, otherwise = "") => {
    const value = more.get(name) ?? otherwise;
    if (value !== otherwise && !pattern.test(value)) throw fault(`${name} "${value}" is no ${what}`);
    return value;
  };
  const protocol = shaped("protocol", /^(tcp|rdma)$/, "protocol: tcp or rdma", "tcp") as "tcp" | "rdma"; // the pattern's
  const device = shaped("device", /^[\w.:,-]{1,256}$/, "list of RDMA devices");
  if (device !== "" && protocol === "tcp") throw fault("device is for protocol=rdma");
  return {
    master: `${host}:${port}`,
    python: programOf(more.get("python") ?? python),
    prefix: shaped("prefix", /^[\w:./-]{1,64}$/, "up to 64 letters, digits and :./-_", "reprise:"),
    protocol,
    device,
    metadata: shaped("metadata", /^[\w:./,;[\]-]{1,512}$/, "address of a metadata server", "P2PHANDSHAKE"),
    host: shaped("host", /^(\[[\da-fA-F:]+\]|[\w.-]{1,253})$/, "host name or address"),
    segmentBytes: sizeOf("segment", more.get("segment"), fault) ?? 0,
    compress: compressionOf(more.get("compress") ?? "none", fault),
  };
}

function programOf(text: string): string {
  if (text === "") throw fault("python is empty");
  if (!text.includes("/")) return text;
  const path = resolve(text);
  try {
    accessSync(path, constants.X_OK);
  } catch {
    throw fault(`python ${path} cannot be run`);
  }
  return path;
}

function fault(why: string): RepriseError {
  return new RepriseError("BAD_CONFIG", `--tier mooncake://…: ${why}`);
}
