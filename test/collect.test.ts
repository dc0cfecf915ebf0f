/** `reprise cache collect` as cron runs it. */
import { execFile } from "node:child_process";
import { onTestFinished, test, expect } from "vitest";
import { commandPath } from "./support/repository.ts";
import { startFakeS3 } from "./support/fake-s3.ts";
import { bucket, clientOf, keys } from "./support/s3.ts";

const dayMs = 86_400_000;

function reprise(...args: readonly string[]): Promise<{ code: number; out: string; error: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [commandPath, ...args], { timeout: 60_000, env: keys }, (failure, out, error) => {
      resolve({ code: typeof failure?.code === "number" ? failure.code : failure === null ? 0 : -1, out, error });
    });
  });
}

test("collect removes what has ended its time, says so, and leaves the rest; without a bucket it says what it needs", async () => {
  const fake = await startFakeS3();
  onTestFinished(() => fake[Symbol.asyncDispose]());
  const { signal } = new AbortController();
  fake.now = () => Date.now() - 3 * dayMs;
  await clientOf(fake).put("d/old", [Buffer.alloc(2 ** 20)], { ifAbsent: false }, signal);
  fake.now = Date.now;
  await clientOf(fake).put("d/new", [Buffer.alloc(2 ** 20)], { ifAbsent: false }, signal);
  const address = `s3://${bucket}/test?endpoint=http://127.0.0.1:${fake.port}&ttl=2d`;
  expect(await reprise("cache", "collect", "--tier", address)).toEqual({
    code: 0,
    out: "s3://kv-cache/test: 1 objects removed, 1 MiB; 1 left, 1 MiB.\n",
    error: "",
  });
  expect([...fake.objects.keys()]).toEqual(["test/d/new"]);

  const without = await reprise("cache", "collect", "--tier", "valkey://127.0.0.1");
  expect(without).toMatchObject({ code: 2, out: "" });
  expect(without.error).toContain("--tier s3://BUCKET/PREFIX");
  await fake[Symbol.asyncDispose]();
  const away = await reprise("cache", "collect", "--tier", address);
  expect(away).toMatchObject({ code: 1, out: "" });
  expect(away.error).toMatch(/s3:\/\/kv-cache\/test at http:.*ECONNREFUSED/);
  expect(away.error).not.toContain(keys.AWS_SECRET_ACCESS_KEY);
});
