/** SIGTERM while answers are being given: they end, or are told that they were cut. */
import { connect, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { temporaryDirectory } from "./support/data-directory.ts";
import { type RunningServer, startServer } from "./support/server.ts";

const flags = ["--memory", "64MiB", "--context", "2048", "--threads", "1"];

test("an answer that ends in time is whole, and nobody new is let in meanwhile", async () => {
  const server = await started("--drain", "60");
  const { said, begun } = stream(server, { max_tokens: 60 });
  await begun;
  server.signal("SIGTERM");
  await expect.poll(() => server.output(), { timeout: 5000 }).toContain("closing");
  await expect(fetch(`${server.url}/health`)).rejects.toThrow("fetch failed");
  expect(await said).toContain("data: [DONE]");
  expect((await server.ended).code).toBe(0);
}, 90_000);

test("an answer that lasts longer is cut with an error event", async () => {
  const server = await started("--drain", "0");
  const { said, begun } = stream(server, { max_tokens: 1500 });
  await begun;
  server.signal("SIGTERM");
  const text = await said;
  expect(text).toContain('data: {"error":{"message":"The server is shutting down');
  expect(text).not.toContain("[DONE]");
  expect((await server.ended).code).toBe(0);
}, 90_000);

test("a second signal ends at once", async () => {
  const server = await started("--drain", "600");
  const { said, begun } = stream(server, { max_tokens: 1500 });
  await begun;
  server.signal("SIGTERM");
  await expect.poll(() => server.output(), { timeout: 5000 }).toContain("closing");
  server.signal("SIGTERM");
  expect((await server.ended).code).toBe(143);
  await said;
}, 90_000);

async function started(...more: string[]): Promise<RunningServer> {
  const server = await startServer({ dataDirectory: temporaryDirectory(), flags: [...flags, ...more] });
  onTestFinished(() => server.killAll());
  return server;
}

/** A stream on a socket of its own: when its first piece came, and all of it. */
function stream(server: RunningServer, more: object): { begun: Promise<void>; said: Promise<string> } {
  const body = JSON.stringify({ prompt: "Note 1. The library in", stream: true, ignore_eos: true, ...more });
  const head = `POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json`;
  const socket: Socket = connect(Number(new URL(server.url).port), "127.0.0.1");
  socket.write(`${head}\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  let text = "";
  let begin = (): void => {};
  const begun = new Promise<void>((resolve) => (begin = resolve));
  socket.setEncoding("utf8").on("data", (data: string) => {
    text += data;
    if (text.includes("data: ")) begin();
  });
  socket.on("error", () => socket.destroy());
  const said = new Promise<string>((resolve) => socket.once("close", () => resolve(text)));
  return { begun, said };
}
