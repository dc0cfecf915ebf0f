import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { startFakeS3, type Fault } from "../../../test/support/fake-s3.ts";
import { bucket, clientOf, keys, servers } from "../../../test/support/s3.ts";
import { parseS3Address } from "./address.ts";
import { S3Client } from "./s3-client.ts";

const fake = await startFakeS3();
afterAll(() => fake[Symbol.asyncDispose]());
beforeEach(() => {
  fake.objects.clear();
  fake.requests.length = 0;
  fake.meddle = () => undefined;
  fake.before = async () => {};
});

const { signal } = new AbortController();
const bytes = randomBytes(100_000);

/** Each fault befalls one request, in this order. */
function befall(...faults: (Fault | undefined)[]): void {
  fake.meddle = () => faults.shift();
}

function read(client: S3Client, from: number, count: number, into = Buffer.alloc(count)): Promise<Buffer | "gone"> {
  const makeSink = () => {
    let at = 0;
    return (piece: Buffer) => {
      into.set(piece, at);
      at += piece.length;
    };
  };
  return client
    .read("d/a", { from, bytes: count, makeSink }, signal)
    .then((facts) => (facts === undefined ? "gone" : into));
}

async function withObject(): Promise<S3Client> {
  const client = clientOf(fake);
  expect(await client.put("d/a", [bytes.subarray(0, 10), bytes.subarray(10)], { ifAbsent: false }, signal)).toBe("put");
  fake.requests.length = 0;
  return client;
}

test.each<[string, Fault]>([
  ["500", { status: 500 }],
  ["503 SlowDown", { status: 503, code: "SlowDown" }],
  ["429", { status: 429 }],
  ["a body that is cut", { cutAt: 500 }],
  ["a connection that is closed", { cutAt: 0 }],
  ["408 RequestTimeout", { status: 400, code: "RequestTimeout" }],
])("after %s it is asked again, and what comes is whole", async (_, fault) => {
  const client = await withObject();
  befall(fault, fault);
  expect(await read(client, 1000, 50_000)).toEqual(bytes.subarray(1000, 51_000));
  expect(fake.requests).toHaveLength(3);
});

test("a store that says for how long to leave it alone is left alone so long, by all requests", async () => {
  const client = await withObject();
  await client.put("i/b", [bytes], { ifAbsent: false }, signal);
  fake.requests.length = 0;
  befall({ status: 503, code: "SlowDown", headers: { "retry-after": "1" } });
  const began = performance.now();
  const first = read(client, 0, 10);
  await expect.poll(() => fake.requests.length).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await Promise.all([first, client.get("i/b", 1_000_000, signal)]);
  const [, ...others] = fake.requests;
  expect(others).toHaveLength(2);
  for (const each of others) expect(each.began - began).toBeGreaterThan(950);
});

test("a store that goes on failing is given up, and says why; a signal ends it at once", async () => {
  const client = await withObject();
  fake.meddle = () => ({ status: 500, code: "InternalError" });
  await expect(read(client, 0, 10)).rejects.toMatchObject({
    code: "TIER_UNAVAILABLE",
    message: expect.stringMatching(/^s3:\/\/kv-cache\/test at http:.*: 500 InternalError/) as string,
  });
  expect(fake.requests).toHaveLength(5);
  fake.meddle = () => ({ status: 503, headers: { "retry-after": "20" } });
  const began = performance.now();
  await expect(client.get("d/a", 10, AbortSignal.timeout(100))).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
  expect(performance.now() - began).toBeLessThan(1000);
});

test.each<[Fault, RegExp]>([
  [{ status: 404, code: "NoSuchBucket" }, /no such bucket, make it first/],
  [{ status: 403, code: "AccessDenied" }, /s3:ListBucket/],
  [{ status: 403, code: "SignatureDoesNotMatch" }, /the keys are not the store's/],
  [{ status: 400, code: "ExpiredToken" }, /renew them/],
  [{ status: 301, code: "PermanentRedirect", headers: { "x-amz-bucket-region": "eu-west-1" } }, /say region=eu-west-1/],
])("what will not get better is not tried again, and says what to do: %s", async (fault, said) => {
  const client = await withObject();
  fake.meddle = () => fault;
  await expect(client.get("d/a", 10, signal)).rejects.toThrow(said);
  expect(fake.requests).toHaveLength(1);
});

test("a lookup waits behind no payload, however many are asked for", async () => {
  const client = clientOf(fake, "test", "&connections=2");
  await client.put("d/a", [bytes], { ifAbsent: false }, signal);
  await client.put("i/a", [bytes.subarray(0, 100)], { ifAbsent: false }, signal);
  let letGo = () => {};
  const held = new Promise<void>((resolve) => (letGo = resolve));
  fake.before = ({ name }) => (name.includes("d/") ? held : Promise.resolve());
  const reads = Array.from({ length: 20 }, () => read(client, 0, 100));
  expect((await client.get("i/a", 1000, signal))?.bytes).toEqual(bytes.subarray(0, 100));
  letGo();
  for (const each of await Promise.all(reads)) expect(each).toEqual(bytes.subarray(0, 100));
  client.close();
});

test("a clock that is wrong is put right by the store's", async () => {
  const client = await withObject();
  const storesNow = Date.now() + 3_600_000;
  befall({ status: 403, code: "RequestTimeTooSkewed", headers: { date: new Date(storesNow).toUTCString() } });
  expect(await read(client, 0, 10)).toEqual(bytes.subarray(0, 10));
  const said = String(fake.requests.at(-1)?.headers["x-amz-date"]);
  expect(said.slice(0, 11)).toBe(new Date(storesNow).toISOString().replaceAll("-", "").slice(0, 11));
});

test("a write that we may not do is refused, and no fault; with wrong keys it is one", async () => {
  const client = clientOf(fake);
  fake.meddle = () => ({ status: 403, code: "AccessDenied" });
  expect(await client.put("d/a", [bytes], { ifAbsent: true }, signal)).toBe("refused");
  fake.meddle = () => ({ status: 403, code: "InvalidAccessKeyId" });
  await expect(client.put("d/a", [bytes], { ifAbsent: true }, signal)).rejects.toThrow(/InvalidAccessKeyId/);
});

test.each([
  [507, "XMinioStorageFull"],
  [507, "InsufficientStorage"],
  [403, "QuotaExceeded"],
  [400, "XMinioAdminBucketQuotaExceeded"],
])("a store without room (%d %s) refuses writes at once, and is no fault", async (status, code) => {
  const client = await withObject();
  fake.meddle = ({ method }) => (method === "PUT" ? { status, code } : undefined);
  const before = fake.requests.length;
  expect(await client.put("d/b", [bytes], { ifAbsent: true }, signal)).toBe("refused");
  expect(fake.requests.length).toBe(before + 1);
  expect(await read(client, 0, 10)).toEqual(bytes.subarray(0, 10));
});

test("a store that knows no conditions is written without", async () => {
  fake.meddle = ({ headers }) =>
    headers["if-none-match"] === undefined ? undefined : { status: 501, code: "NotImplemented" };
  const client = clientOf(fake);
  expect(await client.put("d/a", [bytes], { ifAbsent: true }, signal)).toBe("put");
  expect(fake.objects.get("test/d/a")?.bytes).toEqual(bytes);
});

test("more bytes than were asked for, or fewer, are not taken", async () => {
  const client = await withObject();
  const into = Buffer.alloc(200);
  fake.meddle = () => ({ ignoresRange: true });
  await expect(read(client, 0, 100, into)).rejects.toThrow(/more bytes came/);
  fake.meddle = () => undefined;
  expect(await read(client, 99_990, 100)).toBe("gone");
  expect(await read(client, 200_000, 100)).toBe("gone");
  expect(await client.get("d/a", 99_999, signal)).toBeUndefined();
});

test("over a plain connection what is sent is signed, unless it is said not to be; nobody's requests are not", async () => {
  const said = async (client: S3Client) => {
    await client.put("d/a", [bytes], { ifAbsent: false }, signal);
    return fake.requests.at(-1)!.headers;
  };
  const signed = await said(clientOf(fake));
  expect(signed["x-amz-content-sha256"]).toMatch(/^[0-9a-f]{64}$/);
  expect(signed.authorization).toMatch(/^AWS4-HMAC-SHA256 Credential=reprise-test\/\d{8}\/us-east-1\/s3\/aws4_request/);
  expect((await said(clientOf(fake, "test", "&payload=unsigned")))["x-amz-content-sha256"]).toBe("UNSIGNED-PAYLOAD");
  const nobody = await said(clientOf(fake, "test", "&anonymous=yes"));
  expect([nobody.authorization, nobody["x-amz-date"]]).toEqual([undefined, undefined]);
  const address = parseS3Address(`s3://${bucket}/p?endpoint=http://127.0.0.1:${fake.port}&region=eu-west-1`, {});
  const session = await said(new S3Client(address, { ...keys, AWS_SESSION_TOKEN: "a token" }));
  expect(session["x-amz-security-token"]).toBe("a token");
  expect(session.authorization).toMatch(/eu-west-1.*SignedHeaders=[^,]*x-amz-security-token/);
});

test("keys of a file are read again when it has changed, and none are in a message", async () => {
  const file = join(temporaryDirectory(), "credentials");
  const write = (id: string) =>
    writeFileSync(
      file,
      `[default]\naws_access_key_id=other\n[mine]\naws_access_key_id = ${id}\naws_secret_access_key=secret\n`,
    );
  write("first");
  const address = parseS3Address(`s3://${bucket}?endpoint=http://127.0.0.1:${fake.port}&profile=mine`, {});
  const client = new S3Client(address, { ...keys, AWS_SHARED_CREDENTIALS_FILE: file });
  const credential = () => /Credential=(\w+)/.exec(String(fake.requests.at(-1)?.headers.authorization))?.[1];
  await client.get("i/a", 10, signal);
  expect(credential()).toBe("first");
  write("second");
  await client.get("i/a", 10, signal);
  expect(credential()).toBe("second");
  fake.meddle = () => ({ status: 403, code: "SignatureDoesNotMatch" });
  const said = await client.get("i/a", 10, signal).catch(String);
  expect(said).not.toMatch(/second|secret/);
  expect(() => new S3Client(address, { AWS_SHARED_CREDENTIALS_FILE: `${file}.not` })).toThrow(
    /no keys in profile mine of .*credentials\.not: set AWS_ACC/,
  );
});

for (const { name, start } of servers)
  describe(`the bucket of ${name}`, () => {
    test("objects are written, read in ranges, listed, touched and removed", async () => {
      await using server = await start();
      const client = clientOf(server);
      expect(await client.get("d/a", 1000, signal)).toBeUndefined();
      expect(await client.facts("d/a", signal)).toBeUndefined();
      expect(await client.put("d/a", [bytes.subarray(0, 3), bytes.subarray(3)], { ifAbsent: true }, signal)).toBe(
        "put",
      );
      expect(await read(client, 500, 70_000)).toEqual(bytes.subarray(500, 70_500));
      expect(await read(client, 99_999, 1)).toEqual(bytes.subarray(99_999));
      expect(await read(client, 99_999, 2)).toBe("gone");
      expect((await client.get("d/a", 100_000, signal))?.bytes).toEqual(bytes);
      expect(await client.get("d/a", 99_999, signal)).toBeUndefined();
      expect(await client.put("d/a", [bytes], { ifAbsent: true }, signal)).toBe("exists");
      for (let i = 0; i < 5; i += 1) await client.put(`i/${i}`, [Buffer.from([i])], { ifAbsent: false }, signal);
      const listed = [];
      for await (const each of client.list("i", signal)) listed.push(each);
      expect(listed.map((each) => each.name)).toEqual([0, 1, 2, 3, 4].map((i) => `i/${i}`));
      expect(listed.every((each) => each.bytes === 1 && each.ageMs < 60_000)).toBe(true);
      expect(await client.touch("d/a", signal)).toBe(true);
      expect(await read(client, 500, 1000)).toEqual(bytes.subarray(500, 1500));
      const facts = await client.facts("d/a", signal);
      expect(facts!.ageMs).toBeLessThan(60_000);
      await client.remove("d/a", facts!.etag, signal);
      await client.remove("d/a", undefined, signal);
      expect(await read(client, 0, 1)).toBe("gone");
      client.close();
    });
  });
