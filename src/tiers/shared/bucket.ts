/** What is said of a bucket, whoever moves the bytes: its name, its region, where its store is and what begins its objects' names. */
import { oneOf, type Fault } from "./parameters.ts";

type Environment = Readonly<Record<string, string | undefined>>;

export interface Bucket {
  readonly bucket: string;
  readonly region: string;
  /** Of a store that is not AWS's. */
  readonly endpoint: URL | undefined;
  readonly style: "path" | "virtual";
  /** Begins every object's name, without a slash at its end. */
  readonly prefix: string;
}

/** What is not said is as AWS's own programs take it from the environment. */
export function bucketOf(
  { bucket, path }: { readonly bucket: string; readonly path: string },
  more: ReadonlyMap<string, string>,
  environment: Environment,
  fault: Fault,
): Bucket {
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket)) throw fault(`"${bucket}" is no name of a bucket`);
  const region = more.get("region") ?? environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"] ?? "us-east-1";
  if (!/^[\w-]{1,64}$/.test(region)) throw fault(`region "${region}" may have letters, digits and - only`);
  const given = more.get("endpoint") ?? environment["AWS_ENDPOINT_URL_S3"] ?? environment["AWS_ENDPOINT_URL"] ?? "";
  const endpoint = given === "" ? undefined : endpointOf(given, fault);
  // A name with dots fits no certificate for *.s3.REGION.amazonaws.com.
  const usual = endpoint !== undefined || bucket.includes(".") ? "path" : "virtual";
  const style = oneOf("style", more.get("style") ?? usual, ["path", "virtual"], fault);
  return { bucket, region, endpoint, style, prefix: prefixOf(path, fault) };
}

function endpointOf(text: string, fault: Fault): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !["http:", "https:"].includes(url.protocol))
    throw fault("endpoint must look like https://HOST:PORT");
  if (url.username !== "" || url.password !== "") throw fault("keys have no place in the endpoint");
  if (url.pathname !== "/" || url.search !== "" || url.hash !== "")
    throw fault(`endpoint ${url.origin} must have nothing behind the port`);
  return url;
}

function prefixOf(path: string, fault: Fault): string {
  const prefix = path.replace(/^\/|\/$/g, "");
  if (prefix === "") return "reprise";
  // A URL loses names of dots, and whoever lists would not find them again.
  if (/^[\w./-]{1,200}$/.test(prefix) && !prefix.split("/").some((name) => /^\.{0,2}$/.test(name))) return prefix;
  throw fault(`the prefix "${prefix}" may have up to 200 letters, digits and ./-_, and no name of dots alone`);
}
