/** Never in the way: what one client's texts cost is that client's, not its neighbours'. */
import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ask } from "./support/client.ts";
import { type RunningServer, startServer } from "./support/server.ts";

const dataDirectory = mkdtempSync(join(tmpdir(), "reprise-texts-"));
let server: RunningServer;

beforeAll(async () => {
  const flags = ["--memory", "64MiB", "--disk", "0", "--threads", "1", "--sequences", "2"];
  server = await startServer({ dataDirectory, flags });
});
afterAll(async () => {
  await server.killAll();
  rmSync(dataDirectory, { recursive: true, force: true });
});

const megabyte = 2 ** 20;
const oneToken = { prompt: "the rain", max_tokens: 1, temperature: 0, ignore_eos: true };

/** The slowest of ten one-token requests, a moment apart. */
async function slowest(): Promise<number> {
  let most = 0;
  for (let round = 0; round < 10; round += 1) {
    const started = performance.now();
    await ask(server.url, "/v1/completions", oneToken);
    most = Math.max(most, performance.now() - started);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return most;
}

function post(path: string, body: string, signal?: AbortSignal): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return fetch(`${server.url}${path}`, { method: "POST", headers, body, ...(signal && { signal }) });
}

test("16 MiB to /tokenize and to a chat are refused unread, and a one-token request beside them takes what it takes alone", async () => {
  await slowest();
  const alone = await slowest();
  const text = "some words ".repeat((16 * megabyte) / 11);
  const bodies = [
    ["/tokenize", JSON.stringify({ content: text })],
    ["/v1/chat/completions", JSON.stringify({ messages: [{ role: "user", content: text }] })],
  ] as const;
  const statuses: number[] = [];
  const over = new AbortController();
  const load = (async () => {
    while (!over.signal.aborted)
      for (const [path, body] of bodies) {
        // The server answers and hangs up before all is sent: then there is no answer to be read, only an end.
        await post(path, body).then(
          (response) => statuses.push(response.status),
          () => statuses.push(413),
        );
      }
  })();
  const beside = await slowest();
  over.abort();
  await load;
  expect(new Set(statuses)).toEqual(new Set([413]));
  expect(beside, `alone it took ${alone} ms`).toBeLessThan(alone + 400);
});

test("a body that is too large is refused by its declared length, without one byte of it, and as soon as it passes in pieces", async () => {
  const { hostname, port } = new URL(server.url);
  const answerTo = (head: string, body: Buffer) =>
    new Promise<{ text: string; sentBytes: number }>((resolve) => {
      const socket = connect(Number(port), hostname);
      let text = "";
      socket.on("data", (data) => (text += data.toString()));
      socket.on("error", () => {}); // it is closed while we send
      socket.on("close", () => resolve({ text, sentBytes: socket.bytesWritten }));
      socket.write(`POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n${head}\r\n\r\n`);
      socket.write(body);
      setTimeout(() => socket.destroy(), 3000);
    });
  const declared = await answerTo(`content-length: ${16 * megabyte}`, Buffer.alloc(0));
  expect(declared.text).toContain("HTTP/1.1 413");
  expect(declared.text).toContain("body_too_large");
  const piece = Buffer.alloc(64 * 1024, "x");
  const pieces = Array.from({ length: 256 }, () => [Buffer.from("10000\r\n"), piece, Buffer.from("\r\n")]).flat();
  const inPieces = await answerTo("transfer-encoding: chunked", Buffer.concat(pieces));
  expect(inPieces.text).toContain("HTTP/1.1 413");
});

test("the largest texts that may be sent, tokenized and left again, keep no stream waiting", async () => {
  const text = "some words ".repeat((await longestText()) / 11);
  const body = JSON.stringify({ content: text });
  expect((await post("/tokenize", body)).status).toBe(200);
  const tooLong = await post("/v1/completions", JSON.stringify({ prompt: text, max_tokens: 1 }));
  expect(await tooLong.json()).toMatchObject({ error: { code: "context_length_exceeded" } });

  const quiet = await longestGap(async () => {});
  const gap = await longestGap(async (over) => {
    while (!over.aborted) {
      const leave = new AbortController();
      const left = post("/tokenize", body, leave.signal).catch(() => {});
      setTimeout(() => leave.abort(), 30);
      await Promise.all([left, post("/tokenize", body)]);
    }
  });
  expect(gap, `without it ${quiet} ms`).toBeLessThan(quiet + 400);
});

/** The longest pause between two pieces of a stream while `work` goes on. */
async function longestGap(work: (over: AbortSignal) => Promise<void>): Promise<number> {
  const over = new AbortController();
  const working = work(over.signal);
  const stream = { prompt: "the rain", max_tokens: 150, temperature: 0, ignore_eos: true, stream: true };
  const response = await post("/v1/completions", JSON.stringify(stream));
  let last = performance.now();
  let gap = 0;
  for await (const _ of response.body!) {
    gap = Math.max(gap, performance.now() - last);
    last = performance.now();
  }
  over.abort();
  await working;
  return gap;
}

/** Bytes of the longest text that this server's model could have in its context. */
async function longestText(): Promise<number> {
  const { data } = (await (await fetch(`${server.url}/v1/models`)).json()) as { data: { max_model_len: number }[] };
  return data[0]!.max_model_len * 16; // the longest token of the shipped model has 16 bytes
}
