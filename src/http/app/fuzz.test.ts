import { connect } from "node:net";
import { expect, test } from "vitest";
import { rounds, seedOr, timeoutMs } from "../../../test/support/depth.ts";
import { ask, fakeApp, fakeServer, post, type FakeApp } from "./fake-server.ts";

const bodies = rounds({ small: 1500, full: 10_000 });
const requests = 50 * rounds({ small: 4, full: 20 });
const prompts = ["/cache/prefetch", "/cache/pin"] as const;
const paths = ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", ...prompts] as const;

test(
  `${bodies} broken bodies: no failure of ours, and the next honest request is served`,
  async () => {
    const random = randomFrom(seedOr(20_260_101));
    const { app, engine } = fakeApp({ limits: { bodyBytes: 2 ** 20 } });
    const statuses = new Map<number, number>();
    for (let round = 0; round < bodies; round++) {
      const path = pick(random, paths);
      const body = brokenBody(random, path);
      const headers = { "content-type": "application/json" };
      const response = await app.request(path, { method: "POST", body, headers });
      const text = await response.text();
      statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
      if (response.status >= 500) throw new Error(`${response.status} for ${String(body).slice(0, 2000)}: ${text}`);
      if (response.status !== 200) expect(JSON.parse(text)).toHaveProperty("error.message");
      if (round % 500 === 0) await expectServed({ app, engine });
    }
    await expectServed({ app, engine });
    expect(engine.stats().runningRequests).toBe(0);
    // The mutations are not all of one kind: some are refused, some are harmless.
    expect(statuses.get(400)).toBeGreaterThan(bodies / 10);
    expect(statuses.get(200)).toBeGreaterThan(bodies / 10);
  },
  timeoutMs(60_000),
);

test(`${requests} broken requests on sockets: no crash, and the next honest request is served`, async () => {
  const random = randomFrom(seedOr(7));
  await using server = await fakeServer({ socket: { headersTimeoutMs: 300, requestTimeoutMs: 400 } });
  const send = () =>
    new Promise<string>((resolve) => {
      const socket = connect(server.port, "127.0.0.1");
      let answer = "";
      socket.setEncoding("latin1").on("data", (data: string) => (answer += data));
      socket.on("error", () => socket.destroy());
      socket.once("close", () => resolve(answer));
      socket.end(brokenRequest(random));
    });
  for (let round = 0; round < requests / 50; round++) {
    const answers = await Promise.all(Array.from({ length: 50 }, send));
    for (const answer of answers) expect(answer).not.toMatch(/HTTP\/1\.1 5\d\d/);
    await expectServed(server);
  }
  await expect.poll(() => server.engine.stats().runningRequests).toBe(0);
});

async function expectServed({ app }: FakeApp): Promise<void> {
  const response = await post(app, paths[0], ask("one two three"));
  expect(await response.json()).toMatchObject({ choices: [{ message: { content: "I read 4 words." } }] });
}

type Random = () => number;

/** Mulberry32. */
function randomFrom(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function pick<T>(random: Random, options: readonly T[]): T {
  return options[Math.floor(random() * options.length)]!; // random() < 1 and nobody passes an empty list
}

function honestBody(path: (typeof paths)[number]): Record<string, unknown> {
  const settings = {
    model: "default",
    stream: false,
    max_tokens: 3,
    temperature: 0.5,
    top_p: 0.9,
    top_k: 40,
    seed: 1,
    stop: ["x", "y"],
    n: 1,
    stream_options: { include_usage: true },
    cache_salt: "s",
    reprise: { reuse: "prefix", read: true, save: true },
  };
  if (path === "/tokenize") return { content: "a b c", add_special: true, parse_special: false };
  if (path === "/detokenize") return { tokens: [1, 2, 3] };
  if (path === "/v1/completions") return { ...settings, prompt: [1, 2, 3], logprobs: 2, echo: false };
  if (path === "/cache/pin") return { ...settings, prompt: "a b c", seconds: 60 };
  const tools = [{ type: "function", function: { name: "f", parameters: { type: "object" } } }];
  const messages = [
    { role: "system", content: "be brief" },
    { role: "user", content: [{ type: "text", text: "hello" }] },
  ];
  return { ...settings, messages, tools, tool_choice: "auto", logprobs: true, top_logprobs: 2 };
}

function brokenBody(random: Random, path: (typeof paths)[number]): string | Uint8Array<ArrayBuffer> {
  const kind = random();
  if (kind < 0.1) return Uint8Array.from({ length: Math.floor(random() * 300) }, () => Math.floor(random() * 256));
  if (kind < 0.2) {
    const depth = Math.floor(random() * 20_000);
    return (
      pick(random, ['{"messages":', '{"tools":[{"a":', '{"stop":', '{"chat_template_kwargs":{"a":']) + "[".repeat(depth)
    );
  }
  const text = JSON.stringify(mutate(random, honestBody(path)));
  if (kind < 0.5) return text;
  const bytes = new TextEncoder().encode(text);
  for (let flips = 1 + Math.floor(random() * 3); flips > 0; flips--) {
    bytes[Math.floor(random() * bytes.length)] = random() < 0.5 ? Math.floor(random() * 256) : pick(random, ascii);
  }
  return random() < 0.2 ? bytes.slice(0, Math.floor(random() * bytes.length)) : bytes;
}

const ascii = Array.from('[]{}",:0123456789.eE+-\\ntfu', (character) => character.charCodeAt(0));

/** The same value with one or a few of its parts replaced by something else. */
function mutate(random: Random, value: unknown): unknown {
  if (random() < 0.06) return pick(random, strange)(random);
  if (Array.isArray(value)) {
    const items = value.map((item) => mutate(random, item));
    if (random() < 0.05) return Array.from({ length: Math.floor(random() * 5000) }, () => items[0]);
    return items;
  }
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(() => random() > 0.02);
  return Object.fromEntries(entries.map(([name, item]) => [name, mutate(random, item)]));
}

const strange: readonly ((random: Random) => unknown)[] = [
  () => null,
  () => true,
  () => "",
  () => [],
  () => ({}),
  () => -1,
  () => 0,
  () => 1e308,
  () => -1e308,
  () => 2 ** 53,
  () => 0.1,
  () => "\u0000\ud800\uffff",
  () => "<|im_start|>",
  () => ({ type: "image_url", image_url: { url: "file:///etc/passwd" } }),
  () => JSON.parse('{"__proto__":{"polluted":1},"constructor":{"prototype":1}}') as unknown,
  (random) => "x".repeat(Math.floor(random() * 20_000)),
  (random) => nested(Math.floor(random() * 100)),
  (random) => Array.from({ length: Math.floor(random() * 3000) }, () => 0),
];

function nested(depth: number): unknown {
  let value: unknown = 1;
  for (let level = 0; level < depth; level++) value = level % 2 === 0 ? [value] : { a: value };
  return value;
}

function brokenRequest(random: Random): Uint8Array {
  const path = pick(random, paths);
  const body = JSON.stringify(honestBody(path));
  const length = pick(random, [body.length, body.length - 5, body.length + 5, -1, "x", 1e18]);
  const lines = [
    `${pick(random, ["POST", "GET", "PUT", "BREW", ""])} ${pick(random, [path, "/", "/../../etc/passwd", "*", "//", "/%", "/%00"])} HTTP/${pick(random, ["1.1", "1.0", "2.0", "9"])}`,
    `host: ${pick(random, ["localhost", "", "a b", "x:99999", "[::1", "é"])}`,
    `content-type: ${pick(random, ["application/json", "application/json", "text/plain", "\t"])}`,
    random() < 0.8 ? `content-length: ${length}` : "transfer-encoding: chunked",
    ...(random() < 0.2 ? ["expect: 100-continue"] : []),
    ...(random() < 0.2 ? ["upgrade: websocket", "connection: upgrade"] : []),
    ...(random() < 0.2 ? ["content-encoding: gzip"] : []),
  ];
  const bytes = Buffer.from(`${lines.join("\r\n")}\r\n\r\n${body}`, "latin1");
  for (let flips = Math.floor(random() * 4); flips > 0; flips--) {
    bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
  }
  return bytes.subarray(0, random() < 0.2 ? Math.floor(random() * bytes.length) : undefined);
}
