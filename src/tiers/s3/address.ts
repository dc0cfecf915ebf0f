/**
 * Where a bucket is, as `--tier` says it.
 *
 *     s3://BUCKET[/PREFIX][?…]                                   AWS
 *     s3://BUCKET[/PREFIX]?endpoint=https://HOST[:PORT][&…]      a store that speaks the same
 *
 * After a question mark: `endpoint`, `region`, `style`, `ca`, `profile`, `anonymous`, `access`, `payload`, `ttl`, `max`, `connections`.
 * What it does not say comes from the environment, as for other programs: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION,
 * AWS_DEFAULT_REGION, AWS_CA_BUNDLE, AWS_PROFILE. Secrets have no place in it.
 */
import { RepriseError } from "../../errors.ts";
import { certificateIn, connectionsOf, sizeOf } from "../shared/parameters.ts";

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
  /** For reading; a quarter as many more write. */
  readonly connections: number;
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
];
const units: Readonly<Record<string, number>> = { m: 60, h: 3600, d: 86_400 };

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
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket)) throw fault(`"${bucket}" is no name of a bucket`);
  const more = new Map(new URLSearchParams(query));
  const odd = [...more.keys()].find((name) => !known.includes(name));
  if (odd !== undefined) throw fault(`there is no parameter "${odd}"; there are: ${known.join(", ")}`);
  const region = more.get("region") ?? environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"] ?? "us-east-1";
  if (!/^[\w-]{1,64}$/.test(region)) throw fault(`region "${region}" may have letters, digits and - only`);
  const place = placeOf(bucket, region, more, environment);
  const isSecure = place.url.startsWith("https:");
  if (!isSecure && more.has("ca")) throw fault("ca is for TLS: endpoint=https://…");
  const ca = more.get("ca") ?? environment["AWS_CA_BUNDLE"] ?? "";
  const isAnonymous = oneOf("anonymous", more.get("anonymous") ?? "no", ["no", "yes"]) === "yes";
  const profile = more.get("profile") ?? environment["AWS_PROFILE"];
  if (isAnonymous && more.has("profile")) throw fault("anonymous=yes and a profile are given: give one");
  return {
    bucket,
    prefix: prefixOf(path),
    ...place,
    region,
    ca: isSecure && ca !== "" ? certificateIn(ca, fault) : undefined,
    login: isAnonymous ? "anonymous" : { profile: profile === "" ? undefined : profile },
    access: oneOf("access", more.get("access") ?? "all", ["read", "all"]),
    isPayloadSigned:
      oneOf("payload", more.get("payload") ?? (isSecure ? "unsigned" : "signed"), ["signed", "unsigned"]) === "signed",
    ttlSeconds: secondsOf(more.get("ttl") ?? "7d"),
    maxBytes: sizeOf("max", more.get("max"), fault),
    connections: connectionsOf(more.get("connections") ?? "64", 256, fault),
  };
}

function placeOf(
  bucket: string,
  region: string,
  more: ReadonlyMap<string, string>,
  environment: Environment,
): { url: string; style: "path" | "virtual" } {
  const endpoint = more.get("endpoint") ?? environment["AWS_ENDPOINT_URL_S3"] ?? environment["AWS_ENDPOINT_URL"];
  // A name with dots fits no certificate for *.s3.REGION.amazonaws.com.
  const usual = endpoint !== undefined || bucket.includes(".") ? "path" : "virtual";
  const style = oneOf("style", more.get("style") ?? usual, ["path", "virtual"]);
  const url = endpoint === undefined ? new URL(`https://s3.${region}.${domainOf(region)}`) : urlOf(endpoint);
  const host = style === "virtual" ? `${bucket}.${url.host}` : url.host;
  return { url: `${url.protocol}//${host}`, style };
}

function domainOf(region: string): string {
  return region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
}

function urlOf(endpoint: string): URL {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (url === undefined || !["http:", "https:"].includes(url.protocol))
    throw fault(`endpoint must look like https://HOST:PORT`);
  if (url.username !== "" || url.password !== "") throw fault("keys have no place in the endpoint");
  if (url.pathname !== "/" || url.search !== "" || url.hash !== "")
    throw fault(`endpoint ${url.origin} must have nothing behind the port`);
  return url;
}

function prefixOf(path: string): string {
  const prefix = path.replace(/^\/|\/$/g, "");
  if (prefix === "") return "reprise";
  // A URL loses names of dots, and whoever lists would not find them again.
  if (/^[\w./-]{1,200}$/.test(prefix) && !prefix.split("/").some((name) => /^\.{0,2}$/.test(name))) return prefix;
  throw fault(`the prefix "${prefix}" may have up to 200 letters, digits and ./-_, and no name of dots alone`);
}

function oneOf<T extends string>(name: string, text: string, words: readonly T[]): T {
  const found = words.find((each) => each === text);
  if (found !== undefined) return found;
  throw fault(`${name} "${text}" is none of: ${words.join(", ")}`);
}

function secondsOf(text: string): number {
  const [, number, unit] = /^(\d{1,6})([mhd])$/.exec(text) ?? [];
  const seconds = Number(number) * (units[unit ?? ""] ?? Number.NaN);
  if (!(seconds >= 600)) throw fault(`ttl "${text}" is no time of ten minutes or more, such as 12h or 7d`);
  return seconds;
}

function fault(why: string): RepriseError {
  return new RepriseError("BAD_CONFIG", `--tier s3://…: ${why}`);
}
