import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { ask, fakeServer } from "./app/fake-server.ts";
import { BodyReader, type BodyLimits } from "./read-json.ts";

const limits: BodyLimits = { bodyBytes: 300_000, allBodiesBytes: 1_000_000, slowBodyMs: 60_000 };

/** A body that has begun: so many bytes of it were sent. */
function begun(reader: BodyReader, sender: string, bytes: number) {
  let controller!: ReadableStreamDefaultController<Uint8Array>; // set by start
  const body = new ReadableStream<Uint8Array>({ start: (given) => void (controller = given) });
  const headers = { "content-type": "application/json" };
  const request = new Request("http://x/", { method: "POST", headers, body, duplex: "half" });
  const outcome = reader.json(request, { sender }).catch((error: unknown) => (error as { code: string }).code);
  const send = async (more: number) => {
    controller.enqueue(new Uint8Array(more).fill(0x20));
    await sleep(1);
  };
  const end = (text: string) => {
    controller.enqueue(Buffer.from(text));
    controller.close();
    return outcome;
  };
  return send(bytes).then(() => ({ outcome, send, end }));
}

test("unfinished bodies of one sender, as many as there is room for, refuse no other's", async () => {
  const reader = new BodyReader(limits);
  const unfinished = [];
  for (let i = 0; i < 4; i++) unfinished.push(await begun(reader, "greedy", 250_000));
  const other = await begun(reader, "other", 200_000);
  await other.send(40_000);
  expect(await other.end("[1]")).toEqual([1]);
  // The oldest gave way; the other three are still being received.
  expect(await unfinished[0]!.outcome).toBe("too_many_bodies");
  for (const each of unfinished.slice(1)) expect(await each.end("[2]")).toEqual([2]);
});

test("whoever holds most is refused, and a sender alone may have all the room there is", async () => {
  const reader = new BodyReader(limits);
  const bodies = [];
  for (let i = 0; i < 4; i++) bodies.push(await begun(reader, "alone", 249_000));
  expect(await (await begun(reader, "alone", 10_000)).outcome).toBe("too_many_bodies");
  for (const body of bodies) expect(await body.end("[3]")).toEqual([3]);
});

test("the room of bodies that ended, were refused or were broken comes back, also when a refusal crosses a part", async () => {
  const reader = new BodyReader(limits);
  for (let round = 0; round < 20; round++) {
    const unfinished = [];
    for (let i = 0; i < 4; i++) unfinished.push(await begun(reader, "greedy", 240_000));
    const other = begun(reader, "other", 100_000);
    const crossing = unfinished[0]!.send(1000);
    expect(await (await other).end("[4]")).toEqual([4]);
    await crossing;
    for (const each of unfinished) await each.end("]");
  }
  const all = [];
  for (let i = 0; i < 4; i++) all.push(await begun(reader, "alone", 249_000));
  for (const body of all) expect(await body.end("[5]")).toEqual([5]);
});

test("a body that trickles is given up, one that is long on its way is not", async () => {
  const reader = new BodyReader({ ...limits, slowBodyMs: 200 });
  const trickling = await begun(reader, "slow", 100_000);
  const silent = await begun(reader, "silent", 0);
  const steady = await begun(reader, "steady", 40_000);
  const trickle = setInterval(() => void trickling.send(1).catch(() => {}), 20);
  const steadily = setInterval(() => void steady.send(10_000).catch(() => {}), 30);
  expect(await trickling.outcome).toBe("body_too_slow");
  expect(await silent.outcome).toBe("body_too_slow");
  await sleep(300);
  clearInterval(trickle);
  clearInterval(steadily);
  expect(await steady.end("[6]")).toEqual([6]);
});

/** Announces a body under a key, sends so much of it, and collects what is answered. */
async function unfinishedPost(
  port: number,
  key: string,
  bytes: number,
): Promise<{ answer: () => string; leave: () => void }> {
  const socket = connect(port, "127.0.0.1").on("error", () => socket.destroy());
  let text = "";
  socket.setEncoding("latin1").on("data", (data: string) => (text += data));
  await once(socket, "connect");
  const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-api-key: ${key}\r\ncontent-type: application/json`;
  socket.write(`${head}\r\ncontent-length: 60000\r\n\r\n${" ".repeat(bytes)}`);
  return { answer: () => text, leave: () => socket.destroy() };
}

test("over sockets: one key's unfinished bodies get 429 and 408, another key's request its answer", async () => {
  const own = { bodyBytes: 60_000, allBodiesBytes: 100_000, slowBodyMs: 1000 };
  await using server = await fakeServer({ apiKeys: ["key-a", "key-b"], limits: own });
  const first = await unfinishedPost(server.port, "key-a", 50_000);
  const second = await unfinishedPost(server.port, "key-a", 50_000);
  await sleep(100);
  const answer = await fetch(`${server.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "x-api-key": "key-b", "content-type": "application/json" },
    body: JSON.stringify(ask("x".repeat(40_000))),
  });
  expect(answer.status).toBe(200);
  await expect.poll(first.answer).toMatch(/^HTTP\/1\.1 429 [^]*too_many_bodies/);
  await expect.poll(second.answer, { timeout: 5000 }).toMatch(/^HTTP\/1\.1 408 [^]*body_too_slow/);
  for (const { leave } of [first, second]) leave();
});
