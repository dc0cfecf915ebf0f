import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { rootFields } from "../../test/support/raw-peer.ts";
import { temporaryFolder } from "../../test/support/cache.ts";
import { tokenBytes } from "../identity/tokens.ts";
import { Channel, defaultChannelLimits } from "./channel.ts";
import { encodeFrame } from "./frames.ts";
import { parseRequest } from "./protocol.ts";

const texts = 12;
const textTokens = 100_000; // more than a socket takes at once

test("texts that the system does not take at once arrive as they were sent, short messages among them", async () => {
  using folder = temporaryFolder();
  const server = createServer().listen(join(folder.path, "s"));
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const socket = connect(join(folder.path, "s"));
  const [peer] = await accepted;

  const arrived: string[] = [];
  const over = new Promise<void>((resolve) => {
    const reader = new Channel(peer, defaultChannelLimits, {
      onFrame: (body) => {
        const request = parseRequest(body);
        if (request.type === "ping") arrived.push(`ping ${request.id}`);
        if (request.type !== "lookup") return;
        const same = request.tokens.length === textTokens && request.tokens.every((token) => token === request.id);
        arrived.push(`${same ? "text" : "mixed"} ${request.id}`);
      },
      onEnd: () => resolve(),
    });
    reader.handshakeDone();
  });

  const writer = new Channel(socket, defaultChannelLimits, { onFrame: () => {}, onEnd: () => {} });
  const expected: string[] = [];
  for (let id = 0; id < texts; id += 1) {
    const tokens = tokenBytes(new Uint32Array(textTokens).fill(id));
    writer.send({ type: "lookup", id, deadlineMs: 1, ...rootFields, computeNs: 0, awaited: false, tokens });
    writer.send({ type: "ping", id, deadlineMs: 1 });
    expected.push(`text ${id}`, `ping ${id}`);
    if (id % 3 === 2) await new Promise((resolve) => setImmediate(resolve));
  }
  writer.end();
  await over;
  expect(arrived).toEqual(expected);
  server.close();
});

test("a peer is not silent because this process had no time to read: what has arrived counts", async () => {
  using folder = temporaryFolder();
  const server = createServer().listen(join(folder.path, "s"));
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const peer = connect(join(folder.path, "s"));
  const [socket] = await accepted;
  const ends: (Error | undefined)[] = [];
  const whole = new Promise<void>((resolve) => {
    const events = { onFrame: () => resolve(), onEnd: (reason: Error | undefined) => void ends.push(reason) };
    const channel = new Channel(socket, { ...defaultChannelLimits, stallMs: 50 }, events);
    expect(channel.isOver).toBe(false);
  });
  const frame = encodeFrame({ type: "ping", id: 1, deadlineMs: 1 });
  peer.write(frame.subarray(0, 6));
  await once(socket, "data");
  peer.write(frame.subarray(6)); // the system has it before this returns
  const busyUntil = performance.now() + 100; // or suspended
  while (performance.now() < busyUntil);
  await whole;
  expect(ends).toEqual([]);
  peer.destroy();
  socket.destroy();
  server.close();
});
