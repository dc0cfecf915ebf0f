/**
 * Where a bucket is, as `--tier` says it.
 *
 *     s3://BUCKET[/PREFIX][?…]                                   AWS
 *     s3://BUCKET[/PREFIX]?endpoint=https://HOST[:PORT][&…]      a store that speaks the same
 *
 * After a question mark: `endpoint`, `region`, `style`, `ca`, `profile`, `anonymous`, `access`, `payload`, `ttl`, `max`, `connections`,
 * `compress`.
 * What it does not say comes from the environment, as for other programs: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION,
 * AWS_DEFAULT_REGION, AWS_CA_BUNDLE, AWS_PROFILE. Secrets have no place in it.
 */
import { RepriseError } from "../../errors.ts";
import { type Bucket, bucketOf } from "../shared/bucket.ts";
import {
  certificateIn,
  compressionOf,
  connectionsOf,
  oneOf,
  parametersOf,
  sizeOf,
  ttlOf,
} from "../shared/parameters.ts";
import type { Compression } from "../shared/payloads.ts";

export interface S3Address {
  readonly bucket: string;
  /** Begins every object's name, without a slash at its end. */
  readonly prefix: string;
  /** Of the store, with the bucket in its host where that is the style. No slash at its end. */
  readonly url: string;
  readonly style: "path" | "virtual";
  readonly region: string;
  readonly ca: Buffer | undefined;
  readonly login: "anonymous" | { readonly profile: string | undefined };
  /** "read": nothing is written, nor touched. */
  readonly access: "read" | "all";
  /** True: what is sent is covered by the signature, as it must be where no TLS protects it. */
  readonly isPayloadSigned: boolean;
  /** How long an object is kept after it was used last. */
  readonly ttlSeconds: number;
  /** What `reprise cache collect` leaves; undefined: whatever is young enough. */
  readonly maxBytes: number | undefined;
  /** For reading; as many more look up, and a quarter as many write. */
  readonly connections: number;
  readonly compress: Compression;
}

type Environment = Readonly<Record<string, string | undefined>>;

const known = [
  "endpoint",
  "region",
  "style",
  "ca",
  "profile",
  "anonymous",
  "access",
  "payload",
  "ttl",
  "max",
  "connections",
  "compress",
];
export function isS3Address(text: string): boolean {
  return text.startsWith("s3:");
}

/** @throws RepriseError BAD_CONFIG */
export function parseS3Address(text: string, environment: Environment = process.env): S3Address {
  const [, login, bucket, path = "", query = ""] = /^s3:\/\/([^@/?]*@)?([^/?]+)(\/[^?]*)?(?:\?(.*))?$/.exec(text) ?? [];
  if (login !== undefined)
    throw fault(
      "keys have no place in it: give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or as profile=NAME",
    );
  if (bucket === undefined) throw fault("it must look like s3://BUCKET/PREFIX");
  const more = parametersOf(query, known, fault);
  const { endpoint, ...place } = bucketOf({ bucket, path }, more, environment, fault);
  const url = urlOf(endpoint, place);
  const isSecure = url.startsWith("https:");
  if (!isSecure && more.has("ca")) throw fault("ca is for TLS: endpoint=https://…");
  const ca = more.get("ca") ?? environment["AWS_CA_BUNDLE"] ?? "";
  const isAnonymous = oneOf("anonymous", more.get("anonymous") ?? "no", ["no", "yes"], fault) === "yes";
  const profile = more.get("profile") ?? environment["AWS_PROFILE"];
  if (isAnonymous && more.has("profile")) throw fault("anonymous=yes and a profile are given: give one");
  return {
    ...place,
    url,
    ca: isSecure && ca !== "" ? certificateIn(ca, fault) : undefined,
    login: isAnonymous ? "anonymous" : { profile: profile === "" ? undefined : profile },
    access: oneOf("access", more.get("access") ?? "all", ["read", "all"], fault),
    isPayloadSigned:
      oneOf("payload", more.get("payload") ?? (isSecure ? "unsigned" : "signed"), ["signed", "unsigned"], fault) ===
      "signed",
    ttlSeconds: ttlOf(more.get("ttl") ?? "7d", { seconds: 600, words: "ten minutes" }, fault),
    maxBytes: sizeOf("max", more.get("max"), fault),
    connections: connectionsOf(more.get("connections") ?? "64", 256, fault),
    compress: compressionOf(more.get("compress") ?? "none", fault),
  };
}

/** Of the store, with the bucket in its host where that is the style. */
function urlOf(endpoint: URL | undefined, { bucket, region, style }: Omit<Bucket, "endpoint">): string {
  const { protocol, host } = endpoint ?? new URL(`https://s3.${region}.${domainOf(region)}`);
  return `${protocol}//${style === "virtual" ? `${bucket}.${host}` : host}`;
}

function domainOf(region: string): string {
  return region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
}

function fault(why: string): RepriseError {
  return new RepriseError("BAD_CONFIG", `--tier s3://…: ${why}`);
}
