import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { rounds } from "../../test/support/depth.ts";
import { silentLog } from "../log.ts";
import type { FakeAnswer } from "./app/fake-engine.ts";
import { ask, fakeApp, fakeServer } from "./app/fake-server.ts";
import { listen } from "./listen.ts";
import { all, chatPath, endless, exchange, open, running, send } from "../../test/support/raw-client.ts";
import { loopbackHosts } from "./shell.ts";

const crowd = 2 * rounds({ small: 100, full: 500 });

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

  test.each(["prefetch", "pin"])("stops what a %s brings", async (verb) => {
    let working = 0;
    const bring = (signal: AbortSignal) => {
      working += 1;
      return new Promise<number>((resolve) => signal.addEventListener("abort", () => resolve((working -= 1))));
    };
    await using server = await fakeServer({
      prefetch: (_text, _tokens, signal) => bring(signal),
      pin: (_text, _tokens, _seconds, signal) => bring(signal),
    });
    const socket = await send(server.port, { prompt: "x", seconds: 1 }, { path: `/cache/${verb}` });
    await expect.poll(() => working).toBe(1);
    socket.destroy();
    await expect.poll(() => working).toBe(0);
    await send(server.port, { prompt: "x", seconds: 1 }, { path: `/cache/${verb}` });
    await expect.poll(() => working).toBe(1);
    await server.close({ graceMs: 10 });
    expect(working).toBe(0);
  });

  test("before its body is complete never reaches the engine", async () => {
    await using server = await fakeServer();
    const socket = await send(server.port, ask("x"), { withhold: 10 });
    await sleep(20);
    socket.destroy();
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    expect(server.engine.requests).toHaveLength(0);
  });

  test(`and ${crowd} of them at once leave nothing behind`, async () => {
    await using server = await fakeServer({ fake: { script: () => ({ pieces: endless(), pieceMs: 500 }) } });
    const sockets = await Promise.all(
      Array.from({ length: crowd }, (_, index) => send(server.port, ask(`x ${index}`, { stream: index % 2 === 0 }))),
    );
    await running(server.engine, crowd);
    for (const socket of sockets) socket.destroy();
    await running(server.engine, 0);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toContain(`reprise_streams_cut_total{reason="client_gone"} ${crowd / 2}`);
    expect(metrics).toContain('vllm:num_requests_running{model_name="fake-1b"} 0');
  });
});

describe("a client that has said all", () => {
  test.each([
    ["a whole answer", false, /HTTP\/1.1 200 OK\r\n[^]*"content":"late"/],
    ["a stream", true, /HTTP\/1.1 200 OK\r\n[^]*"content":"late"[^]*data: \[DONE\]\n\n/],
  ])("and closes its sending side gets its answer, and then the end: %s", async (_title, stream, expected) => {
    const script = () => ({ pieces: ["late"], prefillMs: 20 });
    await using server = await fakeServer({ fake: { script } });
    const socket = await send(server.port, ask("x", { stream }));
    socket.end();
    expect(await all(socket)).toMatch(expected);
    expect(server.engine.stats().runningRequests).toBe(0);
  });

  test("and waits long for it is told to go on waiting, which is how one that is gone is found out", async () => {
    const script = () => ({ pieces: ["late"], prefillMs: 600 });
    await using server = await fakeServer({ fake: { script } });
    const socket = await send(server.port, ask("x"));
    socket.end();
    expect(await all(socket)).toMatch(/^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 200 OK\r\n[^]*late/);
  });

  test("of which half was sent is answered 400", async () => {
    await using server = await fakeServer();
    const socket = await open(server.port);
    socket.end("GET /health HTTP/1.1\r\nhost: local");
    expect(await all(socket)).toMatch(/^HTTP\/1.1 400 /);
  });
});

test("a client that leaves before its body has come is no fault of the server's: nothing is logged", async () => {
  const error = vi.fn<(message: string) => void>();
  const log = { ...silentLog, error };
  await using server = await fakeServer({ log });
  const head = `POST ${chatPath} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n`;
  for (const body of ["content-length: 500\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n5\r\n{"]) {
    const socket = await open(server.port);
    socket.write(head + body);
    await sleep(50);
    socket.destroy();
  }
  const counted = 'reprise_requests_total{route="/v1/chat/completions",status="499"} 2';
  await vi.waitFor(async () => expect(await (await fetch(`${server.url}/metrics`)).text()).toContain(counted));
  expect(error).not.toHaveBeenCalled();
});

test("no frame of a stream waits for a timer, in case it is all there is", async () => {
  await using server = await fakeServer();
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  onTestFinished(() => void vi.useRealTimers());
  const socket = await send(server.port, ask("x", { stream: true }));
  socket.end();
  expect(await all(socket)).toMatch(/^data: \[DONE\]$/m);
});

describe("a client without a Host", () => {
  test.each([
    ["HTTP/1.0", "GET /health HTTP/1.0\r\n\r\n"],
    ["HTTP/1.0 that would keep the connection", "GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"],
    ["HTTP/1.1", "GET /health HTTP/1.1\r\nconnection: close\r\n\r\n"],
    ["an empty one", "GET /health HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n"],
  ])("is answered: %s", async (_title, text) => {
    await using server = await fakeServer({ allowedHosts: loopbackHosts });
    const socket = await open(server.port);
    socket.write(text);
    let answer = "";
    socket.setEncoding("utf8").on("data", (data: string) => (answer += data));
    await vi.waitFor(() => expect(answer).toMatch(/^HTTP\/1.1 200 OK[^]*"status":"ok"/));
    socket.destroy();
  });

  test("streams in HTTP/1.0 without chunks, until the connection ends", async () => {
    await using server = await fakeServer();
    const body = JSON.stringify(ask("x", { stream: true }));
    const socket = await open(server.port);
    socket.write(
      `POST ${chatPath} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n`,
    );
    socket.write(body);
    const answer = await all(socket);
    expect(answer).toMatch(/\n\ndata: \[DONE\]\n\n$/);
    expect(answer).not.toContain("transfer-encoding");
  });

  test("is no way in for pages: a foreign name is refused in every form that a browser could send", async () => {
    await using server = await fakeServer({ allowedHosts: [...loopbackHosts, "proxy.example"] });
    const status = async (text: string) => (await exchange(server.port, text)).slice(9, 12);
    const close = "connection: close\r\n\r\n";
    expect(await status(`GET /health HTTP/1.1\r\nhost: evil.example\r\n${close}`)).toBe("403");
    expect(await status(`GET /health HTTP/1.0\r\nhost: evil.example\r\n${close}`)).toBe("403");
    expect(await status(`GET http://evil.example/health HTTP/1.1\r\n${close}`)).toBe("403");
    expect(await status(`GET /health HTTP/1.1\r\nhost: proxy.example\r\n${close}`)).toBe("200");
    expect(await status(`GET /health HTTP/1.1\r\nhost: proxy.example:8443\r\n${close}`)).toBe("200");
    expect(await status(`GET /health HTTP/1.1\r\nhost: a.proxy.example\r\n${close}`)).toBe("403");
    expect(await status(`GET /health HTTP/1.1\r\nhost: xn--localhost\r\n${close}`)).toBe("400");
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
