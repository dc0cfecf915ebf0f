import { expect, test } from "vitest";
import { doneFrame, pieceFrame, type Script, startFakeServer, wholeAnswer } from "./fake-server.ts";
import { streamAgent, streamRequest, type StreamRequest } from "./stream-client.ts";

async function askFake(script: Script, change: Partial<StreamRequest> = {}) {
  await using server = await startFakeServer(script);
  return await askUrl(server.url, change); // the server is there until then
}

async function askUrl(address: string, change: Partial<StreamRequest> = {}) {
  const url = new URL(`${address}/v1/chat/completions`);
  const agent = change.agent ?? streamAgent(url);
  try {
    return await streamRequest({
      url,
      agent,
      apiKey: undefined,
      body: "{}",
      expected: undefined,
      stallMs: 5000,
      signal: new AbortController().signal,
      ...change,
    });
  } finally {
    if (change.agent === undefined) agent.destroy();
  }
}

test("a whole answer: text, times in order, usage, reuse by tier", async () => {
  const answer = await askFake((_, response) => response.end(wholeAnswer(["Os", "lo"])), { expected: "Oslo" });
  expect(answer).toMatchObject({
    outcome: "ok",
    text: "Oslo",
    promptTokens: 100,
    completionTokens: 2,
    cachedTokens: 60,
    reused: { resident: 0, memory: 40, disk: 20 },
  });
  const times = [answer.sentAt, ...answer.tokenAt, answer.endAt];
  expect(times).toHaveLength(4);
  expect(times).toEqual(times.toSorted((a, b) => a - b));
});

test("headers, role chunks and comments are not the first token", async () => {
  let pieceAt = 0;
  const answer = await askFake((_, response) => {
    response.writeHead(200).write(`: hello\n\ndata: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n`);
    setTimeout(() => {
      pieceAt = performance.now();
      response.end(pieceFrame("Yes") + doneFrame);
    }, 50);
  });
  expect(answer.tokenAt[0]).toBeGreaterThanOrEqual(pieceAt);
});

test("an answer without [DONE] is whole where it has a finish_reason", async () => {
  const finish = 'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n';
  expect(await askFake((_, response) => response.end(pieceFrame("Yes") + finish))).toMatchObject({ outcome: "ok" });
});

test("another answer than the expected one is wrong", async () => {
  const answer = await askFake((_, response) => response.end(wholeAnswer(["Lima"])), { expected: "Oslo" });
  expect(answer).toMatchObject({ outcome: "wrong", error: 'answered "Lima" instead of "Oslo"' });
});

test("a stream that ends early, breaks, or holds garbage is cut", async () => {
  expect(await askFake((_, response) => response.end(pieceFrame("Os")))).toMatchObject({ outcome: "cut", text: "Os" });
  expect(await askFake((_, response) => response.write(pieceFrame("Os"), () => response.destroy()))).toMatchObject({
    outcome: "cut",
    text: "Os",
  });
  expect(await askFake((_, response) => response.end("data: {oops\n\n"))).toMatchObject({ outcome: "cut" });
  expect(await askFake((_, response) => response.end("<html>welcome</html>"))).toMatchObject({ outcome: "cut" });
  expect(await askFake((_, response) => response.socket?.end("garbage\r\n\r\n"))).toMatchObject({ outcome: "cut" });
  expect(
    await askFake((_, response) => response.end('data: {"error":{"message":"the engine ended"}}\n\n')),
  ).toMatchObject({ outcome: "cut", error: "the engine ended" });
});

test("silence longer than the limit is a stall, before the first byte and after it; comments are no silence", async () => {
  expect(await askFake(() => {}, { stallMs: 60 })).toMatchObject({ outcome: "stalled" });
  const stalled = await askFake((_, response) => response.write(pieceFrame("Os")), { stallMs: 60 });
  expect(stalled).toMatchObject({ outcome: "stalled", text: "Os" });
  const patient = await askFake(
    (_, response) => {
      let comments = 0;
      const timer = setInterval(() => {
        comments += 1;
        if (comments < 12) response.write(": keep-alive\n\n");
        else response.end(wholeAnswer(["Yes"]), () => clearInterval(timer));
      }, 25);
    },
    { stallMs: 200 },
  );
  expect(patient).toMatchObject({ outcome: "ok" });
});

test("a refusal has its status and the server's words", async () => {
  const refuse = (status: number, body: string) =>
    askFake((_, response) => response.writeHead(status, { "retry-after": "1" }).end(body));
  expect(await refuse(429, '{"error":{"message":"64 requests wait"}}')).toMatchObject({
    outcome: "http 429",
    error: "64 requests wait",
  });
  expect(await refuse(500, "")).toMatchObject({ outcome: "http 500", error: "an empty answer" });
});

test("nobody there is unreachable", async () => {
  const server = await startFakeServer(() => {});
  await server[Symbol.asyncDispose]();
  expect(await askUrl(server.url)).toMatchObject({ outcome: "unreachable" });
});

test("a server that leaves the connection open after [DONE] delays nobody's end", async () => {
  const answer = await askFake((_, response) => response.write(wholeAnswer(["Yes"])));
  expect(answer.outcome).toBe("ok");
  expect(answer.endAt).toBe(answer.tokenAt[0]); // both came in one read
});

test("an idle connection that the server closed is not a failure", async () => {
  let requests = 0;
  await using server = await startFakeServer((_, response, request) => {
    requests += 1;
    // The second request meets a connection that dies without a byte.
    if (requests === 2) request.socket.resetAndDestroy();
    else response.end(wholeAnswer(["Yes"]));
  });
  const agent = streamAgent(new URL(server.url));
  expect(await askUrl(server.url, { agent })).toMatchObject({ outcome: "ok" });
  expect(await askUrl(server.url, { agent })).toMatchObject({ outcome: "ok" });
  expect(requests).toBe(3);
  agent.destroy();
});

test("nor are several of them", async () => {
  const [used, waiting] = [new WeakSet<object>(), [] as (() => void)[]];
  let requests = 0;
  await using server = await startFakeServer((_, response, request) => {
    requests += 1;
    if (used.has(request.socket)) return void request.socket.resetAndDestroy();
    used.add(request.socket);
    // The first three are answered together, so that each has a connection of its own.
    waiting.push(() => response.end(wholeAnswer(["Yes"])));
    if (requests === 3 || requests > 6) for (const answer of waiting.splice(0)) answer();
    return undefined;
  });
  const agent = streamAgent(new URL(server.url));
  await Promise.all([1, 2, 3].map(() => askUrl(server.url, { agent })));
  expect(await askUrl(server.url, { agent })).toMatchObject({ outcome: "ok" });
  expect(requests).toBe(7);
  agent.destroy();
});

test("a run that ends takes its requests with it", async () => {
  const stop = new AbortController();
  const answer = await askFake((_, response) => response.write(pieceFrame("Os"), () => stop.abort()), {
    signal: stop.signal,
  });
  expect(answer).toMatchObject({ outcome: "cut", error: "the run was ended" });
});
