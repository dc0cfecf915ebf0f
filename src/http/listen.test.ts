import { request as httpRequest } from "node:http";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test, vi } from "vitest";
import { silentLog } from "../log.ts";
import type { FakeAnswer, FakeEngine } from "./fake-engine.ts";
import { ask, fakeApp, fakeServer } from "./fake-server.ts";
import { listen } from "./listen.ts";

const chatPath = "/v1/chat/completions";

describe("where it listens", () => {
  test("on loopback, and says at which address", async () => {
    await using server = await fakeServer();
    expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  test("a taken port is an error of its own", async () => {
    await using server = await fakeServer();
    const second = listen({ app: server.app, log: silentLog, port: server.port });
    await expect(second).rejects.toMatchObject({ code: "ADDRESS_IN_USE" });
  });

  test("an address that is not this machine's is a configuration error", async () => {
    const { app } = fakeApp();
    const elsewhere = listen({ app, log: silentLog, host: "192.0.2.1", port: 0 });
    await expect(elsewhere).rejects.toMatchObject({ code: "BAD_CONFIG", field: "host" });
  });
});

describe("a client that leaves", () => {
  test.each([
    ["during a stream", true, { pieces: endless(), pieceMs: 5 }],
    ["during the prefill of a stream", true, { pieces: ["late"], prefillMs: 600_000 }],
    ["while it waits for a whole answer", false, { pieces: endless(), pieceMs: 5 }],
    ["during the prefill of a whole answer", false, { pieces: ["late"], prefillMs: 600_000 }],
  ])("%s stops the engine's work", async (_title, stream, answer: FakeAnswer) => {
    await using server = await fakeServer({ fake: { script: () => answer } });
    const socket = await send(server.port, ask("x", { stream }));
    await running(server.engine, 1);
    const left = performance.now();
    socket.destroy();
    await running(server.engine, 0);
    expect(performance.now() - left).toBeLessThan(1000);
    const status = answer.pieceMs !== undefined && stream ? 200 : 499;
    const line = `reprise_requests_total{route="${chatPath}",status="${status}"} 1`;
    await expect.poll(async () => (await fetch(`${server.url}/metrics`)).text()).toContain(line);
  });

  test("politely, with FIN, is gone all the same", async () => {
    await using server = await fakeServer({ fake: { script: () => ({ pieces: [], prefillMs: 600_000 }) } });
    const socket = await send(server.port, ask("x"));
    await running(server.engine, 1);
    socket.end();
    await running(server.engine, 0);
  });

  test("before its body is complete never reaches the engine", async () => {
    await using server = await fakeServer();
    const socket = await send(server.port, ask("x"), { withhold: 10 });
    await sleep(20);
    socket.destroy();
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    expect(server.engine.requests).toHaveLength(0);
  });

  test("and a thousand of them at once leave nothing behind", async () => {
    await using server = await fakeServer({ fake: { script: () => ({ pieces: endless(), pieceMs: 500 }) } });
    const sockets = await Promise.all(
      Array.from({ length: 1000 }, (_, index) => send(server.port, ask(`x ${index}`, { stream: index % 2 === 0 }))),
    );
    await running(server.engine, 1000);
    for (const socket of sockets) socket.destroy();
    await running(server.engine, 0);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toContain('reprise_streams_cut_total{reason="client_gone"} 500');
    expect(metrics).toContain('vllm:num_requests_running{model_name="fake-1b"} 0');
  });
});

describe("a client that does not read", () => {
  test("holds a bounded part of the answer, and is cut after the deadline", async () => {
    const pieces = {
      *[Symbol.iterator]() {
        for (;;) yield "x".repeat(16_384);
      },
    };
    await using server = await fakeServer({ fake: { script: () => ({ pieces }) }, limits: { stallMs: 300 } });
    const socket = await send(server.port, ask("x", { stream: true, max_tokens: 1_000_000 }));
    socket.pause();
    let before = -1;
    await vi.waitFor(
      () => {
        const now = server.engine.events;
        const still = now === before;
        before = now;
        expect(still && now > 2).toBe(true);
      },
      { timeout: 5000, interval: 60 },
    );
    // What the sockets' buffers take; the same number of megabytes whether the client waits for a second or an hour.
    expect(server.engine.events * 16_384).toBeLessThan(16 * 2 ** 20);
    await running(server.engine, 0);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toContain('reprise_streams_cut_total{reason="slow_reader"} 1');
    expect(metrics).not.toContain('reason="client_gone"');
    socket.destroy();
  });

  test("and then reads on in time gets all of it", async () => {
    const count = 600;
    const pieces = Array.from({ length: count }, (_, index) => `${index}${"x".repeat(16_384)}`);
    await using server = await fakeServer({ fake: { script: () => ({ pieces }) }, limits: { stallMs: 10_000 } });
    const socket = await send(server.port, ask("x", { stream: true }));
    socket.pause();
    await sleep(300);
    expect(server.engine.events).toBeLessThan(count);
    let text = "";
    socket
      .setEncoding("latin1")
      .on("data", (data: string) => (text += data))
      .resume();
    await vi.waitFor(() => expect(text.endsWith("\r\n0\r\n\r\n")).toBe(true), { timeout: 10_000 });
    expect(text).toContain(`${count - 1}xxx`);
    expect(text).toContain("data: [DONE]");
    socket.destroy();
  });
});

describe("a connection that is no request", () => {
  test.each([
    ["nonsense", "\0\x01\x02 nonsense\r\n\r\n", 400],
    ["a header that is too large", `GET /health HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(100_000)}\r\n\r\n`, 431],
    ["a host that is none", "GET /health HTTP/1.1\r\nhost: a b\r\n\r\n", 400],
  ])("%s is answered in the usual shape", async (_title, text, status) => {
    await using server = await fakeServer();
    const answer = await exchange(server.port, text);
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(answer).toContain('{"error":{"message":');
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  test("headers that never end are given up", async () => {
    await using server = await fakeServer({ socket: { headersTimeoutMs: 100 } });
    const answer = await exchange(server.port, "GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ");
    expect(answer).toMatch(/^HTTP\/1.1 408 /);
  });

  test("a body that never ends is given up", async () => {
    await using server = await fakeServer({ socket: { headersTimeoutMs: 100, requestTimeoutMs: 150 } });
    const socket = await send(server.port, ask("x"), { withhold: 10 });
    await new Promise((resolve) => socket.resume().once("close", resolve));
    expect(server.engine.requests).toHaveLength(0);
  });

  test("one connection too many is closed", async () => {
    await using server = await fakeServer({ socket: { maximumConnections: 2 } });
    const sockets = await Promise.all([open(server.port), open(server.port)]);
    const third = await open(server.port);
    await new Promise((resolve) => third.once("close", resolve));
    for (const socket of sockets) expect(socket.destroyed).toBe(false);
    for (const socket of sockets) socket.destroy();
  });
});

describe("closing", () => {
  test("lets a running answer end, and takes no new one", async () => {
    const script = () => ({ pieces: ["a", "b", "c", "d"], pieceMs: 40 });
    const server = await fakeServer({ fake: { script } });
    const answer = fetch(`${server.url}${chatPath}`, {
      method: "POST",
      body: JSON.stringify(ask("x", { stream: true })),
      headers: { "content-type": "application/json" },
    }).then((response) => response.text());
    await running(server.engine, 1);
    const closed = server.close({ graceMs: 10_000 });
    await expect(fetch(`${server.url}/health`)).rejects.toThrow("fetch failed");
    expect(await answer).toContain("data: [DONE]");
    const ended = performance.now();
    await closed;
    expect(performance.now() - ended).toBeLessThan(5000);
  });

  test("cuts what is still running after the grace period", async () => {
    const server = await fakeServer({ fake: { script: () => ({ pieces: endless(), pieceMs: 5 }) } });
    const socket = await send(server.port, ask("x", { stream: true }));
    await running(server.engine, 1);
    const gone = new Promise((resolve) => socket.resume().once("close", resolve));
    await server.close({ graceMs: 50 });
    await gone;
    await running(server.engine, 0);
    await server.close(); // closing twice is closing
  });

  test("does not wait for idle connections", async () => {
    const server = await fakeServer();
    await new Promise<void>((resolve, reject) => {
      const options = { port: server.port, path: "/health", headers: { connection: "keep-alive" } };
      httpRequest(options, (response) => response.resume().once("end", resolve))
        .once("error", reject)
        .end();
    });
    const idle = await open(server.port);
    const started = performance.now();
    await server.close({ graceMs: 10_000 });
    expect(performance.now() - started).toBeLessThan(5000);
    idle.destroy();
  });
});

async function running(engine: FakeEngine, count: number): Promise<void> {
  await vi.waitFor(() => expect(engine.stats().runningRequests).toBe(count), { timeout: 20_000, interval: 5 });
}

/** A connection of its own, on which errors are what they are: the other side's. */
async function open(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => socket.destroy());
  await new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("close", () => reject(new Error("closed before it was connected")));
  });
  return socket;
}

/** Posts a chat on a raw socket. @param options.withhold bytes of the body that are announced and never sent. */
async function send(port: number, body: object, { withhold = 0 } = {}): Promise<Socket> {
  const text = JSON.stringify(body);
  const socket = await open(port);
  const head = `POST ${chatPath} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json`;
  socket.write(`${head}\r\ncontent-length: ${text.length}\r\n\r\n${text.slice(0, text.length - withhold)}`);
  return socket;
}

async function exchange(port: number, text: string): Promise<string> {
  const socket = await open(port);
  let answer = "";
  socket.setEncoding("utf8").on("data", (data: string) => (answer += data));
  socket.write(text);
  if (text.includes("a b")) socket.end();
  await new Promise((resolve) => socket.once("close", resolve));
  return answer;
}

function endless(): Iterable<string> {
  return {
    *[Symbol.iterator]() {
      for (;;) yield " more";
    },
  };
}
