/** Test support: a client that says what it likes on a socket of its own. */
import { connect, type Socket } from "node:net";
import { expect, vi } from "vitest";
import type { FakeEngine } from "../../src/http/app/fake-engine.ts";

export const chatPath = "/v1/chat/completions";

/** Waits until the engine has so many requests. */
export async function running(engine: FakeEngine, count: number): Promise<void> {
  await vi.waitFor(() => expect(engine.stats().runningRequests).toBe(count), { timeout: 20_000, interval: 5 });
}

/** A connection of its own, on which errors are what they are: the other side's. */
export async function open(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => socket.destroy());
  await new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("close", () => reject(new Error("closed before it was connected")));
  });
  return socket;
}

/** All that comes until the connection ends. */
export async function all(socket: Socket): Promise<string> {
  let text = "";
  socket.setEncoding("utf8").on("data", (data: string) => (text += data));
  await new Promise((resolve) => socket.once("close", resolve));
  return text;
}

/** Posts a chat on a raw socket. @param options.withhold bytes of the body that are announced and never sent. */
export async function send(port: number, body: object, { withhold = 0, path = chatPath } = {}): Promise<Socket> {
  const text = JSON.stringify(body);
  const socket = await open(port);
  const head = `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json`;
  socket.write(`${head}\r\ncontent-length: ${text.length}\r\n\r\n${text.slice(0, text.length - withhold)}`);
  return socket;
}

/** Sends a text and reads until the connection ends. */
export async function exchange(port: number, text: string): Promise<string> {
  const socket = await open(port);
  let answer = "";
  socket.setEncoding("utf8").on("data", (data: string) => (answer += data));
  socket.write(text);
  if (text.includes("a b")) socket.end();
  await new Promise((resolve) => socket.once("close", resolve));
  return answer;
}

/** An answer without an end. */
export function endless(): Iterable<string> {
  return {
    *[Symbol.iterator]() {
      for (;;) yield " more";
    },
  };
}
