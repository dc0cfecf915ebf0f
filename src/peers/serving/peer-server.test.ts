import { connect, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { startHost } from "../../../test/support/peers.ts";
import { encodeFrame, FrameReader } from "../../wire/frames.ts";
import { bareRoot, chunkKeys, rootKey } from "../../identity/keys.ts";
import { spaceId } from "../../identity/space.ts";
import { counting, testSpace } from "../../../test/support/cache.ts";
import { parsePeerAnswer, type PeerRequest, peerRequestMap, peerVersion } from "../protocol.ts";
import { createLog } from "../../log.ts";
import { PeerServer } from "./peer-server.ts";

const space = spaceId(testSpace());
const root = rootKey(space, bareRoot);
const token = "a-token-of-the-tests";
const hello = { type: "hello", id: 1, version: peerVersion, token } as const;

function connectTo({ port }: PeerServer): Socket {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  onTestFinished(() => void socket.destroy());
  return socket;
}

const frame = (request: PeerRequest) => encodeFrame(peerRequestMap(request));

/** What a client that writes these bytes is told before its connection ends. */
async function answersTo(server: PeerServer, ...bytes: readonly Uint8Array[]): Promise<string[]> {
  const socket = connectTo(server);
  const reader = new FrameReader();
  const said: string[] = [];
  socket.on("data", (piece: Buffer) => {
    reader.push(Buffer.from(piece));
    for (let body = reader.next(); body !== undefined; body = reader.next()) said.push(parsePeerAnswer(body).type);
  });
  for (const each of bytes) socket.write(each);
  await new Promise((resolve) => socket.once("close", resolve)); // by a reset as well
  return said;
}

test("who says no hello, nonsense, too much or a wrong token is disconnected, and gets nothing", async () => {
  await using host = await startHost({ server: { token, times: { helloMs: 300 } } });
  await host.save(40);
  const find = frame({ type: "find", id: 2, space, root, keys: chunkKeys(root, counting(40), 4) });
  const cases = {
    silence: [],
    nonsense: [Buffer.from("GET / HTTP/1.1\r\n\r\n")],
    zeros: [Buffer.alloc(100_000)],
    "a long frame": [Buffer.from([0xff, 0xff, 0xff, 0x7f])],
    "no hello": [find],
    "a wrong token": [frame({ ...hello, token: "another-token-of-tests" }), find],
    "another version": [frame({ ...hello, version: 99 }), find],
  };
  for (const [what, bytes] of Object.entries(cases)) {
    const said = await answersTo(host.server, ...bytes);
    expect(
      said.filter((type) => type !== "error"),
      what,
    ).toEqual([]);
  }
  expect(host.server.stats()).toMatchObject({ connections: 0, servedChunks: 0 });
  const tooMuch = Array.from({ length: 40 }, (_, i) => frame({ type: "find", id: 2 + i, space, root, keys: [] }));
  const answered = await answersTo(host.server, Buffer.concat([frame(hello), ...tooMuch]));
  expect(answered.length).toBeLessThan(40);
});

test("whoever is refused is counted, and the log says from where; no token is in it", async () => {
  let said = "";
  const log = createLog({ level: "warn", write: (line) => (said += line) });
  await using host = await startHost({ server: { token, log } });
  await answersTo(host.server, frame(hello), Buffer.alloc(100));
  expect(host.server.stats().refused).toBe(0);
  await answersTo(host.server, frame({ ...hello, token: "another-token-of-tests" }));
  await answersTo(host.server, frame({ ...hello, version: 99 }));
  expect(host.server.stats().refused).toBe(2);
  expect(said).toMatch(/^\S+ warn {2}a host at 127\.0\.0\.1 was refused: the token is not this host's\n$/);
});

test("one that asks for nothing is disconnected after a while, and one that stays in time is not", async () => {
  await using host = await startHost({ server: { times: { helloMs: 200, idleMs: 600 } } });
  const socket = connectTo(host.server);
  let ended = false;
  socket.on("close", () => (ended = true));
  socket.resume();
  socket.write(frame(hello));
  for (let i = 0; i < 5; i += 1) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    socket.write(frame({ type: "ping", id: 2 + i }));
  }
  expect(ended).toBe(false);
  await expect.poll(() => ended, { timeout: 3000 }).toBe(true);
});

test.each(["none", "lossless"] as const)(
  "one that does not read what it asked for (%s) is disconnected; its lease falls and little waits for it",
  async (compress) => {
    const size = { slotBytes: 16 * 1024 * 1024, poolBytes: 256 * 1024 * 1024 };
    await using host = await startHost({ ...size, server: { times: { stallMs: 500 } } });
    await host.save(8, 16 * 1024 * 1024);
    const [key] = chunkKeys(root, counting(8), 4);
    const parts = [{ part: 0, roomBytes: 16 * 1024 * 1024 }];
    const socket = connectTo(host.server);
    socket.pause();
    socket.write(frame(hello));
    for (let i = 0; i < 8; i += 1) socket.write(frame({ type: "fetch", id: 2 + i, key: key!, parts, compress }));
    await expect.poll(() => host.cache.stats().leases).toBe(1); // one chunk at a time
    await expect.poll(() => host.server.stats().connections, { timeout: 5000 }).toBe(0);
    expect(host.cache.stats().leases).toBe(0);
  },
);

test("a thousand clients at once: those beyond the limit are closed, and when all leave nothing is left", async () => {
  await using host = await startHost({ server: { maxConnections: 50 } });
  await host.save(40);
  const [key] = chunkKeys(root, counting(40), 4);
  const sockets = Array.from({ length: 1000 }, () => connectTo(host.server));
  const fetch = frame({ type: "fetch", id: 2, key: key!, parts: [{ part: 0, roomBytes: 512 }], compress: "none" });
  for (const socket of sockets) socket.write(Buffer.concat([frame(hello), fetch]));
  await expect.poll(() => host.server.stats().connections).toBeGreaterThan(0);
  expect(host.server.stats().connections).toBeLessThanOrEqual(50);
  for (const socket of sockets) socket.destroy();
  await expect.poll(() => host.server.stats().connections, { timeout: 10_000 }).toBe(0);
  expect(host.cache.stats().leases).toBe(0);
}, 30_000);

test("a port that is taken, and a certificate that is none, are told", async () => {
  await using host = await startHost();
  const listen = (more: object) => PeerServer.listen({ cache: host.cache, host: "127.0.0.1", port: 0, ...more });
  const { port } = host.server;
  await expect(listen({ port })).rejects.toMatchObject({
    code: "ADDRESS_IN_USE",
    message: `--listen 127.0.0.1:${port} is taken by another program: choose another port`,
  });
  await expect(listen({ host: "192.0.2.1" })).rejects.toMatchObject({ code: "BAD_CONFIG" });
  const none = Buffer.from("no certificate");
  await expect(listen({ tls: { cert: none, key: none } })).rejects.toMatchObject({ code: "BAD_CONFIG" });
});
