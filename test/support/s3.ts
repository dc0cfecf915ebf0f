/**
 * Real S3 servers of the tests' own, those that are here: `.ci/run` installs them and says where. Without them the tests run against
 * fake-s3.ts alone.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseS3Address } from "../../src/tiers/s3/address.ts";
import { S3Client } from "../../src/tiers/s3/s3-client.ts";
import { S3Tier, type S3TierOptions } from "../../src/tiers/s3/s3-tier.ts";
import { startFakeS3 } from "./fake-s3.ts";
import { freePort } from "./valkey.ts";

export interface S3Server extends AsyncDisposable {
  readonly port: number;
}

export const keys = { AWS_ACCESS_KEY_ID: "reprise-test", AWS_SECRET_ACCESS_KEY: "not-a-secret" };
export const bucket = "kv-cache";

interface Program {
  readonly name: string;
  readonly start: () => Promise<S3Server>;
}

const moto = process.env["REPRISE_TEST_MOTO"] ?? "";
const seaweed = process.env["REPRISE_TEST_SEAWEEDFS"] ?? "";

/** Every kind of server that is here, each with an empty bucket. Where CI is set all must be there. */
export const servers: readonly Program[] = [
  { name: "fake", path: "", start: () => startFakeS3() },
  {
    name: "moto",
    path: moto,
    start: () => launch((port) => ({ program: moto, args: ["-H", "127.0.0.1", "-p", String(port)] })),
  },
  {
    name: "SeaweedFS",
    path: seaweed,
    start: () => launch(seaweedArgs),
  },
].filter(({ name, path }) => name === "fake" || existsSync(path) || process.env["CI"] !== undefined);

async function launch(
  command: (
    port: number,
    folder: string,
  ) => { program: string; args: string[] } | Promise<{ program: string; args: string[] }>,
): Promise<S3Server> {
  const folder = mkdtempSync(join(tmpdir(), "reprise-s3-"));
  const port = await freePort();
  const { program, args } = await command(port, folder);
  const child = spawn(program, args, { stdio: "ignore", cwd: folder });
  try {
    for (let tries = 0; !(await makeBucket(port)); tries += 1) {
      if (child.exitCode !== null || tries > 600) throw new Error(`${program} does not answer`);
      await sleep(50);
    }
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
  return {
    port,
    async [Symbol.asyncDispose]() {
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** One process for all of its parts, which want ports of their own. */
async function seaweedArgs(port: number, folder: string): Promise<{ program: string; args: string[] }> {
  const identity = {
    name: "test",
    credentials: [{ accessKey: keys.AWS_ACCESS_KEY_ID, secretKey: keys.AWS_SECRET_ACCESS_KEY }],
    actions: ["Admin", "Read", "Write", "List", "Tagging"],
  };
  writeFileSync(join(folder, "identities.json"), JSON.stringify({ identities: [identity] }));
  const ports: string[] = [];
  for (const name of ["master.port", "volume.port", "filer.port"])
    ports.push(`-${name}=${await freePort()}`, `-${name}.grpc=${await freePort()}`);
  const s3 = ["-s3", `-s3.port=${port}`, `-s3.port.grpc=${await freePort()}`, "-s3.config=identities.json"];
  const sizes = ["-master.volumeSizeLimitMB=64", "-volume.max=0"];
  return { program: seaweed, args: ["server", "-ip=127.0.0.1", `-dir=${folder}`, ...sizes, ...ports, ...s3] };
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
