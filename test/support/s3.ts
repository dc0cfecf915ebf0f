/**
 * Real S3 servers of the tests' own, those that are here: `.ci/run` installs them and says where. Without them the tests run against
 * fake-s3.ts alone.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { parseS3Address } from "../../src/tiers/s3/address.ts";
import { S3Client } from "../../src/tiers/s3/s3-client.ts";
import { S3Tier, type S3TierOptions } from "../../src/tiers/s3/s3-tier.ts";
import { startFakeS3 } from "./fake-s3.ts";
import { freePort, here, prefixOf, type StorePlace } from "./valkey.ts";

export interface S3Server extends AsyncDisposable {
  readonly port: number;
}

export const keys = { AWS_ACCESS_KEY_ID: "reprise-test", AWS_SECRET_ACCESS_KEY: "not-a-secret" };
export const bucket = "kv-cache";

interface Program {
  readonly name: string;
  /** The fake is always here. */
  readonly start: (place?: StorePlace) => Promise<S3Server>;
}

const moto = process.env["REPRISE_TEST_MOTO"] ?? "";
const seaweed = process.env["REPRISE_TEST_SEAWEEDFS"] ?? "";

/** Every kind of server that is here, each with an empty bucket. Where CI is set all must be there. */
export const servers: readonly Program[] = [
  { name: "fake", path: "", start: () => startFakeS3() },
  {
    name: "moto",
    path: moto,
    start: (place = here) => launch((port) => ({ program: moto, args: ["-H", place.host, "-p", String(port)] }), place),
  },
  {
    name: "SeaweedFS",
    path: seaweed,
    start: (place = here) => launch((port, folder) => seaweedArgs(port, folder, place), place),
  },
].filter(({ name, path }) => name === "fake" || existsSync(path) || process.env["CI"] !== undefined);

type Command = (
  port: number,
  folder: string,
) => { program: string; args: string[] } | Promise<{ program: string; args: string[] }>;

/** One that ends right after its start is started again: a port that was free may have been taken meanwhile. */
async function launch(command: Command, place: StorePlace): Promise<S3Server> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await launchOnce(command, place);
    } catch (error) {
      if (tries === 3) throw error;
    }
  }
}

async function launchOnce(command: Command, place: StorePlace): Promise<S3Server> {
  const folder = mkdtempSync(join(tmpdir(), "reprise-s3-"));
  const port = await freePort();
  const { program, args } = await command(port, folder);
  const [first, ...words] = [...prefixOf(place), program, ...args];
  const child = spawn(first!, words, { stdio: "ignore", cwd: folder }); // the program at least
  const ended = once(child, "exit"); // listened to from the start: it may end at any time
  const close = async () => {
    child.kill("SIGKILL");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (let tries = 0; !(await (place === here ? makeBucket(port) : makeBucketThere(port, place))); tries += 1) {
      if (child.exitCode !== null || tries > 600) throw new Error(`${program} does not answer`);
      await sleep(50);
    }
    // The last of its parts may find its port taken when the first one answers already.
    await sleep(500);
    if (child.exitCode !== null) throw new Error(`${program} ended with ${child.exitCode} right after its start`);
  } catch (error) {
    await close();
    throw error;
  }
  return { port, [Symbol.asyncDispose]: close };
}

/** One process for all of its parts, which want ports of their own. */
async function seaweedArgs(
  port: number,
  folder: string,
  { host }: StorePlace,
): Promise<{ program: string; args: string[] }> {
  const identity = {
    name: "test",
    credentials: [{ accessKey: keys.AWS_ACCESS_KEY_ID, secretKey: keys.AWS_SECRET_ACCESS_KEY }],
    actions: ["Admin", "Read", "Write", "List", "Tagging"],
  };
  writeFileSync(join(folder, "identities.json"), JSON.stringify({ identities: [identity] }));
  const ports: string[] = [];
  for (const name of ["master.port", "volume.port", "filer.port"])
    ports.push(`-${name}=${await freePort()}`, `-${name}.grpc=${await freePort()}`);
  // Its catalogs have ports of their own, fixed ones: of two servers at a time the second would end.
  const catalogs = ["-s3.port.iceberg=0", "-s3.port.lance=0"];
  const s3 = [
    "-s3",
    `-s3.port=${port}`,
    `-s3.port.grpc=${await freePort()}`,
    "-s3.config=identities.json",
    ...catalogs,
  ];
  const sizes = ["-master.volumeSizeLimitMB=64", "-volume.max=0"];
  return { program: seaweed, args: ["server", `-ip=${host}`, `-dir=${folder}`, ...sizes, ...ports, ...s3] };
}

/** @returns true when it is there */
async function makeBucket(port: number): Promise<boolean> {
  const { AwsClient } = await import("aws4fetch");
  const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey } = keys;
  const client = new AwsClient({ accessKeyId, secretAccessKey, service: "s3", region: "us-east-1", retries: 0 });
  try {
    return (await client.fetch(`http://127.0.0.1:${port}/${bucket}`, { method: "PUT" })).ok;
  } catch {
    return false; // it does not listen yet
  }
}

/** By curl, which runs where the store does. */
async function makeBucketThere(port: number, place: StorePlace): Promise<boolean> {
  const { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret } = keys;
  const curl = [
    "curl",
    "-sSf",
    "-m",
    "5",
    "-X",
    "PUT",
    "--aws-sigv4",
    "aws:amz:us-east-1:s3",
    "--user",
    `${id}:${secret}`,
  ];
  const [program, ...args] = [...prefixOf(place), ...curl, `http://${place.host}:${port}/${bucket}`];
  return promisify(execFile)(program, args).then(
    () => true,
    () => false,
  ); // it does not listen yet
}

export function clientOf({ port }: { port: number }, prefix = "test", parameters = ""): S3Client {
  const address = parseS3Address(`s3://${bucket}/${prefix}?endpoint=http://127.0.0.1:${port}${parameters}`, {});
  return new S3Client(address, keys);
}

export function tierOf(
  server: { port: number },
  { prefix, parameters, ...options }: Partial<S3TierOptions> & { prefix?: string; parameters?: string } = {},
): S3Tier {
  const maxRecordBytes = 4 * 1024 * 1024;
  const client = clientOf(server, prefix, parameters);
  return new S3Tier({ client, keys: [], maxRecordBytes, ttlSeconds: 86_400, access: "all", idleMs: 5, ...options });
}
