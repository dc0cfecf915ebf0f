/** Two `reprise cache` processes over a folder or a bucket that both have, through NIXL; and starts that are refused. */
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { PoolMapping } from "../src/ffi/pool-mapping.ts";
import { CacheControl } from "../src/wire/guest/control.ts";
import { connectCache } from "../src/wire/guest/link.ts";
import { counting, loadAndVerify, save, testSpace } from "./support/cache.ts";
import { filesBelow, temporaryDirectory } from "./support/data-directory.ts";
import { startFakeS3 } from "./support/fake-s3.ts";
import { isHere, wheel } from "./support/nixl.ts";
import { repositoryRoot } from "./support/repository.ts";
import { bucket, keys } from "./support/s3.ts";
import { startCache } from "./support/server.ts";

const bytes = 1_000_000;

async function start(tier: string) {
  const flags = ["--memory", "512MiB", "--disk", "0", "--tier", tier];
  const host = await startCache({ dataDirectory: temporaryDirectory(), flags });
  onTestFinished(() => host.killAll());
  const { socketPath } = host;
  const session = await connectCache({ space: testSpace(), rank: 0, slotBytes: [1024 * 1024], socketPath });
  const mapping = PoolMapping.open(session.pool.path, session.pool.bytes);
  onTestFinished(async () => {
    await session.close();
    mapping.close();
  });
  const memory = { view: (offset: number, length: number) => mapping.slot(offset, length) };
  return {
    ...host,
    save: (length: number) => save(session, memory, counting(length), { bytes }),
    load: (length: number) => loadAndVerify(session, memory, counting(length), { bytes }),
  };
}

function sharedFolder() {
  const folder = join(temporaryDirectory(), "shared");
  mkdirSync(folder, { mode: 0o700 });
  return { address: `nixl://posix${folder}?`, count: () => filesBelow(folder).length };
}

async function sharedBucket() {
  Object.assign(process.env, keys, { AWS_EC2_METADATA_DISABLED: "true" }); // the caches have it from us
  const s3 = await startFakeS3();
  onTestFinished(() => s3[Symbol.asyncDispose]());
  const address = `nixl://obj/${bucket}/hosts?endpoint=http://127.0.0.1:${s3.port}&`;
  return { address, count: () => s3.objects.size };
}

async function statsOf(socketPath: string): Promise<{ readonly [name: string]: unknown }> {
  const control = await CacheControl.connect(socketPath);
  await using _control = control;
  return control!.stats();
}

describe.skipIf(!isHere).each(["folder", "bucket"] as const)("hosts that have a %s together", (kind) => {
  test("what one has stored another loads, also when the first is gone", async () => {
    const { address, count } = kind === "folder" ? sharedFolder() : await sharedBucket();
    const tier = `${address}library=${wheel}`;
    const first = await start(tier);
    await first.save(40);
    await expect.poll(count, { timeout: 10_000 }).toBeGreaterThanOrEqual(20);
    expect(await first.stop()).toBe(0);
    const second = await start(tier);
    await expect.poll(() => second.load(40), { timeout: 10_000 }).toBe(40);
    expect((await statsOf(second.socketPath))["loadedTokens"]).toMatchObject({ nixl: 40 });
    expect(await second.stop()).toBe(0);
  }, 60_000);
});

for (const [what, environment, says] of [
  ["NIXL is nowhere", { NIXL_LIBRARY: "/nowhere" }, "pip install --no-deps nixl-cu12"],
  ["there is no such plugin", {}, "there are: posix, obj"],
] as const)
  test(`a start is refused with one line where ${what}`, () => {
    const tier = what === "NIXL is nowhere" ? "nixl://posix/mnt/shared" : "nixl://gds/mnt/shared";
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(repositoryRoot, "dist/cli/main.js"), "cache", "--data-dir", temporaryDirectory(), "--tier", tier],
      { encoding: "utf8", env: { ...process.env, ...environment }, timeout: 30_000 },
    );
    expect(status).toBe(2);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(stderr).toContain(says);
  });
