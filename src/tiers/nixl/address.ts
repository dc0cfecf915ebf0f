/**
 * Where NIXL keeps values, as `--tier` says it.
 *
 *     nixl://posix/ABSOLUTE/FOLDER[?…]        files in a folder that other hosts have too
 *     nixl://obj/BUCKET[/PREFIX][?…]          objects in a bucket
 *
 * After a question mark: for both `transfers`, `library` and `compress`; for files `ttl`, `max` and `queue`; for objects `endpoint`, `region`,
 * `style` and `ca`. Keys for a bucket come from where AWS's own programs take them; they have no place in it.
 */
import { RepriseError } from "../../errors.ts";
import { bucketOf } from "../shared/bucket.ts";
import type { Compression } from "../shared/payloads.ts";
import { certificateIn, compressionOf, oneOf, parametersOf, sizeOf, ttlOf } from "../shared/parameters.ts";

export type NixlAddress = FileAddress | ObjectAddress;

interface CommonAddress {
  /** Under way at a time for reading; as many more write. */
  readonly transfers: number;
  readonly compress: Compression;
  /** Where the library is; undefined: where it usually is. */
  readonly library: string | undefined;
}

export interface FileAddress extends CommonAddress {
  readonly plugin: "POSIX";
  readonly folder: string;
  /** How long a value is kept after it was written. */
  readonly ttlSeconds: number;
  /** Of all hosts together; undefined: whatever the folder has room for. */
  readonly maxBytes: number | undefined;
  readonly parameters: Readonly<Record<string, string>>;
}

export interface ObjectAddress extends CommonAddress {
  readonly plugin: "OBJ";
  /** Begins every object's name, without a slash at its end. */
  readonly prefix: string;
  /** As the plugin takes them. */
  readonly parameters: Readonly<Record<string, string>>;
}

type Environment = Readonly<Record<string, string | undefined>>;

const common = ["transfers", "library", "compress"];
const forFiles = ["ttl", "max", "queue", ...common];
const forObjects = ["endpoint", "region", "style", "ca", ...common];
const mostTransfers = 16;

export function isNixlAddress(text: string): boolean {
  return text.startsWith("nixl:");
}

/** @throws RepriseError BAD_CONFIG */
export function parseNixlAddress(text: string, environment: Environment = process.env): NixlAddress {
  const [, plugin, path = "", query = ""] = /^nixl:\/\/([\w-]+)(\/[^?]*)?(?:\?(.*))?$/.exec(text) ?? [];
  switch (plugin?.toLowerCase()) {
    case "posix":
      return fileAddress(decoded(path), parametersOf(query, forFiles, fault));
    case "obj":
      return objectAddress(path, parametersOf(query, forObjects, fault), environment);
    case undefined:
      throw fault("it must look like nixl://posix/ABSOLUTE/FOLDER or nixl://obj/BUCKET/PREFIX");
    default:
      throw fault(`there is no plugin "${plugin}" here; there are: posix, obj`);
  }
}

function fileAddress(path: string, more: ReadonlyMap<string, string>): FileAddress {
  const folder = path.replace(/\/+$/, "");
  if (folder === "") throw fault("behind nixl://posix a folder must follow: nixl://posix/mnt/shared/reprise");
  if (folder.includes("\0") || folder.split("/").some((name) => name === "." || name === ".."))
    throw fault(`"${folder}" must be a path without . and ..`);
  // Linux's own asynchronous calls, which containers let through, or its rings, which many forbid.
  const queue = oneOf("queue", more.get("queue") ?? "aio", ["aio", "uring"], fault);
  return {
    plugin: "POSIX",
    folder,
    ttlSeconds: ttlOf(more.get("ttl") ?? "7d", { seconds: 600, words: "ten minutes" }, fault),
    maxBytes: sizeOf("max", more.get("max"), fault),
    parameters: { [`use_${queue}`]: "true", ios_pool_size: "64" },
    ...commonOf(more),
  };
}

function objectAddress(path: string, more: ReadonlyMap<string, string>, environment: Environment): ObjectAddress {
  const [, bucket = "", within = ""] = /^\/([^/]*)(.*)$/.exec(path) ?? [];
  const { region, endpoint, style, prefix } = bucketOf({ bucket, path: within }, more, environment, fault);
  const ca = more.get("ca") ?? environment["AWS_CA_BUNDLE"] ?? "";
  if (ca !== "") certificateIn(ca, fault); // it can be read
  return {
    plugin: "OBJ",
    prefix,
    parameters: {
      bucket,
      region,
      use_virtual_addressing: String(style === "virtual"),
      // Stores that are not AWS's keep a checksum that follows the body as part of it. Ours are inside of values.
      req_checksum: "required",
      resp_checksum: "required",
      num_threads: "1",
      ...(endpoint === undefined ? {} : { endpoint_override: endpoint.origin, scheme: endpoint.protocol.slice(0, -1) }),
      ...(ca === "" ? {} : { ca_bundle: ca }),
    },
    ...commonOf(more),
  };
}

function commonOf(more: ReadonlyMap<string, string>): CommonAddress {
  const transfers = more.get("transfers") ?? "4";
  if (!/^\d{1,2}$/.test(transfers) || Number(transfers) < 1 || Number(transfers) > mostTransfers)
    throw fault(`transfers "${transfers}" is not a whole number from 1 to ${mostTransfers}`);
  return {
    transfers: Number(transfers),
    library: more.get("library"),
    compress: compressionOf(more.get("compress") ?? "none", fault),
  };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw fault("a % in it is not followed by two hexadecimal digits");
  }
}

function fault(why: string): RepriseError {
  return new RepriseError("BAD_CONFIG", `--tier nixl://…: ${why}`);
}
