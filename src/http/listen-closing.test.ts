/** How the server closes: what may end, what is cut, and what is refused meanwhile. */
import { request as httpRequest } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { RepriseError } from "../errors.ts";
import { ask, fakeServer } from "./app/fake-server.ts";
import { all, chatPath, endless, open, running, send } from "../../test/support/raw-client.ts";

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

  test("cuts a stream after the grace period with an error event, not as if it had ended", async () => {
    const server = await fakeServer({ fake: { script: () => ({ pieces: endless(), pieceMs: 5 }) } });
    const socket = await send(server.port, ask("x", { stream: true }));
    await running(server.engine, 1);
    const said = all(socket);
    await server.close({ graceMs: 50 });
    const text = await said;
    expect(text).toMatch(/\ndata: {"error":{"message":"The server is shutting down[^\n]*"code":"cancelled"}}\n\n/);
    expect(text).not.toContain("[DONE]");
    expect(text).toMatch(/\r\n0\r\n\r\n$/); // the answer is over, as HTTP says it
    await running(server.engine, 0);
    await server.close(); // closing twice is closing
  });

  test.each([
    ["a stream that waits for its status", true],
    ["a whole answer", false],
  ])("refuses what has not begun after the grace period, to be asked again: %s", async (_title, stream) => {
    const server = await fakeServer({ fake: { script: () => ({ pieces: [], prefillMs: 600_000 }) } });
    const socket = await send(server.port, ask("x", { stream }));
    await running(server.engine, 1);
    const said = all(socket);
    await server.close({ graceMs: 20 });
    const text = await said;
    expect(text).toMatch(/^HTTP\/1.1 503 [^]*retry-after: 5\r\n/);
    expect(text).toMatch(/"message":"The server is shutting down[^]*"code":"cancelled"/);
    expect(text).toMatch(/x-request-id: /);
    await running(server.engine, 0);
  });

  test("says that it closes, also where the engine is the first to say that the request was cancelled", async () => {
    const server = await fakeServer();
    server.engine.generate = async function* (_request, signal) {
      yield await new Promise<never>((_, reject) => {
        signal.addEventListener("abort", () => reject(new RepriseError("CANCELLED", "The client left")));
      });
    };
    const socket = await send(server.port, ask("x"));
    await sleep(100);
    const said = all(socket);
    await server.close({ graceMs: 20 });
    expect(await said).toMatch(/^HTTP\/1.1 503 [^]*"message":"The server is shutting down/);
  });

  test("refuses a tokenizer's question that hangs, and a body that is still being sent", async () => {
    const server = await fakeServer();
    server.engine.tokenize = () => new Promise(() => {});
    const hanging = fetch(`${server.url}/tokenize`, {
      method: "POST",
      body: '{"content":"x"}',
      headers: { "content-type": "application/json" },
    });
    const half = await send(server.port, ask("x"), { withhold: 5 });
    const said = all(half);
    await sleep(50);
    await server.close({ graceMs: 20 });
    expect((await hanging).status).toBe(503);
    expect(await said).toMatch(/^HTTP\/1.1 503 /);
    expect(server.engine.requests).toHaveLength(0);
  });

  test("refuses a next request on a connection whose answer is being given", async () => {
    const script = () => ({ pieces: ["a", "b", "c", "d"], pieceMs: 60 });
    const server = await fakeServer({ fake: { script } });
    const socket = await send(server.port, ask("x", { stream: true }));
    const said = all(socket);
    await running(server.engine, 1);
    const closed = server.close({ graceMs: 10_000 });
    socket.write("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    expect(await said).toMatch(/data: \[DONE\]\n\n\r\n0\r\n\r\n(HTTP\/1.1 503 |$)/);
    await closed;
  });

  test("does not wait for a client that reads nothing", async () => {
    const pieces = {
      *[Symbol.iterator]() {
        for (;;) yield "x".repeat(16_384);
      },
    };
    const server = await fakeServer({ fake: { script: () => ({ pieces }) } });
    const socket = await send(server.port, ask("x", { stream: true, max_tokens: 1_000_000 }));
    socket.pause();
    await running(server.engine, 1);
    await sleep(300);
    const started = performance.now();
    await server.close({ graceMs: 20 });
    expect(performance.now() - started).toBeLessThan(5000);
    socket.destroy();
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
