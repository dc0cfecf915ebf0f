import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { describe, expect, onTestFinished, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { startFakeS3, type FakeS3 } from "../../../test/support/fake-s3.ts";
import { isHere, storeOf } from "../../../test/support/nixl.ts";
import { bucket, keys } from "../../../test/support/s3.ts";
import { makeCertificate } from "../../../test/support/valkey.ts";
import { noSignal } from "../tier-suite.ts";

// NIXL takes keys from where AWS's own programs do.
Object.assign(process.env, keys, { AWS_EC2_METADATA_DISABLED: "true" });

const aHead = () => randomBytes(32).toString("hex");
const aPiece = () => `${randomBytes(16).toString("hex")}:0:0`;
const addressOf = (port: number, more = "") => `nixl://obj/${bucket}/test?endpoint=http://127.0.0.1:${port}${more}`;

function objectOf(s3: FakeS3, name: string) {
  return s3.objects.get(`test/${name.replaceAll(":", "/")}`)!; // it was written
}

describe.skipIf(!isHere)("values as objects", () => {
  test("short and long heads are found in one question, and those that are not there are none", async () => {
    await using s3 = await startFakeS3();
    await using store = storeOf(addressOf(s3.port));
    const values = [700, 200_000, 32_768 - 48, 32_768 - 47].map((bytes) => ({
      name: aHead(),
      bytes: randomBytes(bytes),
    }));
    for (const value of values) await store.write([value], "a", noSignal);
    const names = values.flatMap(({ name }) => [aHead(), name]);
    const found = await store.getAll(names, 250_000, noSignal);
    expect(found).toHaveLength(names.length);
    for (const [i, { bytes }] of values.entries()) {
      expect(found[2 * i]).toBeUndefined();
      expect(Buffer.compare(found[2 * i + 1]!, bytes)).toBe(0);
    }
    expect(await store.getAll(names, 100, noSignal)).toEqual(names.map(() => undefined));
  });

  test("a lookup that has left asks for nothing more", async () => {
    await using s3 = await startFakeS3();
    await using store = storeOf(addressOf(s3.port));
    const names = Array.from({ length: 32 }, aHead);
    const bytes = randomBytes(40_000); // a long one: each is asked for twice, the second time alone
    for (const name of names) await store.write([{ name, bytes }], "a", noSignal);
    expect(await store.getAll(names.slice(0, 1), 50_000, noSignal)).toEqual([bytes]);
    const leaving = new AbortController();
    let asked = 0;
    s3.meddle = () => {
      asked += 1;
      if (asked === names.length + 2) leaving.abort();
      return asked > names.length ? { delayMs: 20 } : undefined;
    };
    await expect(store.getAll(names, 50_000, leaving.signal)).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
    // Both threads answer only when they are free again.
    const none = Array.from({ length: 128 }, aHead);
    await store.getAll(none, 50_000, noSignal);
    expect(asked - none.length).toBeLessThan(names.length + 8);
  });

  test("what nobody has is known with one question more, however much is asked for", async () => {
    await using s3 = await startFakeS3();
    await using store = storeOf(addressOf(s3.port));
    expect(await store.getAll(Array.from({ length: 16 }, aHead), 1000, noSignal)).toEqual(Array(16).fill(undefined));
    const methods = s3.requests.map(({ method }) => method);
    expect(methods.filter((method) => method === "GET")).toHaveLength(16);
    expect(methods.filter((method) => method === "HEAD")).toHaveLength(1);
  });

  test("an object that is cut, changed, empty, longer, or of others is gone, and nothing of it is given", async () => {
    await using s3 = await startFakeS3();
    await using store = storeOf(addressOf(s3.port));
    const name = aPiece();
    const bytes = randomBytes(50_000);
    const into = Buffer.alloc(bytes.length, "untouched");
    const before = Buffer.from(into);
    const odd: [string, (whole: Buffer) => Buffer][] = [
      ["cut", (whole) => whole.subarray(0, 30_000)],
      ["cut at its end", (whole) => whole.subarray(0, -1)],
      ["cut in its header", (whole) => whole.subarray(0, 20)],
      ["framed by others", (whole) => Buffer.concat([Buffer.from("c380;chunk-signature=0\r\n"), whole])],
      ["of another length", (whole) => Buffer.concat([whole.subarray(0, 8), Buffer.from([1, 0]), whole.subarray(10)])],
      ["text", () => Buffer.from("<?xml version='1.0'?><Error/>")],
      ["empty", () => Buffer.alloc(0)],
    ];
    for (const [what, change] of odd) {
      await store.write([{ name, bytes }], "a", noSignal);
      expect(await store.read(name, Buffer.alloc(bytes.length), noSignal)).toBe("read"); // it lies in the thread's memory now
      const object = objectOf(s3, name);
      object.bytes = change(object.bytes);
      expect(await store.read(name, into, noSignal), what).toBe("gone");
      expect(await store.getAll([name], 60_000, noSignal), what).toEqual([undefined]);
    }
    await store.write([{ name, bytes }], "a", noSignal);
    for (const length of [49_999, 50_001]) expect(await store.read(name, Buffer.alloc(length), noSignal)).toBe("gone");
    s3.objects.clear();
    expect(await store.read(name, into, noSignal)).toBe("gone");
    expect(into.equals(before)).toBe(true);
  });

  test("whoever leaves has its memory back at once: an answer that comes later goes nowhere", async () => {
    await using s3 = await startFakeS3();
    await using store = storeOf(addressOf(s3.port, "&transfers=1"));
    const values = [aPiece(), aPiece()].map((name) => ({ name, bytes: randomBytes(100_000) }));
    for (const value of values) await store.write([value], "a", noSignal);
    const [first, second] = values as [(typeof values)[0], (typeof values)[0]];
    s3.meddle = ({ method, name }) =>
      method === "GET" && first.name.startsWith(name.split("/")[1]!) ? { delayMs: 1500 } : undefined;
    const into = Buffer.alloc(100_000, "untouched");
    const before = Buffer.from(into);
    const began = performance.now();
    await expect(store.read(first.name, into, AbortSignal.timeout(300))).rejects.toMatchObject({
      code: "TIER_UNAVAILABLE",
    });
    expect(performance.now() - began).toBeLessThan(1200);
    // The only thread goes on to the end of what it does, and then takes up what waits.
    const other = Buffer.alloc(100_000);
    expect(await store.read(second.name, other, noSignal)).toBe("read");
    expect(other.equals(second.bytes)).toBe(true);
    expect(into.equals(before)).toBe(true);
  });

  test("a store that is away, or hangs, is unavailable when whoever asks has waited long enough", async () => {
    const silent = createServer(() => {}).listen(0, "127.0.0.1");
    await once(silent, "listening");
    const { port } = silent.address() as AddressInfo; // of TCP
    for (const each of [port, 9]) {
      await using store = storeOf(addressOf(each));
      const began = performance.now();
      await expect(store.getAll([aHead()], 100, AbortSignal.timeout(500))).rejects.toMatchObject({
        code: "TIER_UNAVAILABLE",
      });
      await expect(
        store.write([{ name: aHead(), bytes: randomBytes(10) }], "a", AbortSignal.timeout(500)),
      ).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
      expect(performance.now() - began).toBeLessThan(3000);
    }
    silent.close();
  });

  test("over TLS a store is believed by its certificate alone", async () => {
    await using s3 = await startFakeS3();
    const folder = temporaryDirectory();
    const { key, certificate } = makeCertificate(folder);
    const secure = createTlsServer({ key: readFileSync(key), cert: readFileSync(certificate) }, (socket) => {
      const plain = connect(s3.port, "127.0.0.1");
      socket.on("error", () => plain.destroy()).pipe(plain);
      plain.on("error", () => socket.destroy()).pipe(socket);
    }).listen(0, "127.0.0.1");
    secure.on("tlsClientError", () => {}); // whoever does not believe it
    onTestFinished(() => void secure.close());
    await once(secure, "listening");
    const { port } = secure.address() as AddressInfo; // of TCP
    const address = `nixl://obj/${bucket}/test?endpoint=https://127.0.0.1:${port}`;
    const value = { name: aHead(), bytes: randomBytes(1000) };
    await using trusting = storeOf(`${address}&ca=${certificate}`);
    expect(await trusting.write([value], "a", noSignal)).toBe("written");
    expect(await trusting.getAll([value.name], 2000, noSignal)).toEqual([value.bytes]);
    const { certificate: another } = makeCertificate(temporaryDirectory());
    await using other = storeOf(`${address}&ca=${another}`);
    await expect(other.getAll([value.name], 2000, noSignal)).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
  });

  test("a store that says no to a write is unavailable, and one that is back is used", async () => {
    await using s3 = await startFakeS3();
    await using store = storeOf(addressOf(s3.port));
    const value = { name: aHead(), bytes: randomBytes(10) };
    s3.meddle = () => ({ status: 403, code: "AccessDenied" });
    await expect(store.write([value], "a", noSignal)).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
    await expect(store.getAll([value.name], 100, noSignal)).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
    s3.meddle = () => undefined;
    expect(await store.write([value], "a", noSignal)).toBe("written");
    expect(await store.getAll([value.name], 100, noSignal)).toEqual([value.bytes]);
  });
});
