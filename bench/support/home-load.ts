/**
 * The load of a household on one server: chats that stream, long prompts, clients that leave, polls of figures and page, and requests that are
 * wrong. What should have been answered and was not, and what should have been refused and was not, is a fault.
 */
import { setMaxListeners } from "node:events";
import type { Agent } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { ask } from "../../src/bench/notes/notes.ts";
import type { Random } from "../../src/bench/notes/random.ts";
import { streamAgent, streamRequest, type StreamedAnswer } from "../../src/bench/stream-client.ts";
import { type ChatMessage, chatRequest } from "../../src/bench/workloads/chat-request.ts";
import { OPEN_QUESTION, passage } from "../../src/bench/workloads/passage.ts";

const [fewestUsers, mostUsers] = [4, 16];
const usersChangeMs = 30_000;
const stallMs = 300_000;
/** Characters of notes: some 600 and 4,000 tokens of the shipped model. */
const [shortText, longText] = [2400, 16_000];

/** Nothing of a poll stays open. */
const headers = { "content-type": "application/json", connection: "close" };

/** Each is refused, with a status of 400 to 499. */
const wrongRequests: readonly (readonly [method: string, path: string, body?: string])[] = [
  ["POST", "/v1/chat/completions", "{"],
  ["POST", "/v1/chat/completions", '{"messages": "hello"}'],
  ["POST", "/v1/chat/completions", '{"messages": [{"role": "user", "content": "hello"}], "temperature": "warm"}'],
  ["POST", "/v1/completions", '{"prompt": [1, -1]}'],
  ["POST", "/v1/completions", JSON.stringify({ prompt: "word ".repeat(40_000), max_tokens: 1 })],
  ["POST", "/tokenize", "[]"],
  ["DELETE", "/v1/completions"],
  ["GET", "/nothing/here"],
];
const polled = ["/metrics", "/cache/stats", "/health", "/v1/models", "/", "/app.js", "/style.css"];

export class HomeLoad {
  readonly counts = { answers: 0, longPrompts: 0, left: 0, polls: 0, refused: 0 };
  readonly faults: string[] = [];
  readonly #url: string;
  readonly #random: Random;
  readonly #agent: Agent;
  #users = fewestUsers;

  constructor(url: string, random: Random) {
    this.#url = url;
    this.#random = random;
    this.#agent = streamAgent(new URL(url));
  }

  /** Everything once, and every connection closed. */
  async askOnce(): Promise<void> {
    await this.#ask(this.#newChat(shortText), 8);
    await this.#poll();
    await this.#askWrong();
    this.#agent.destroy();
  }

  /** Resolves when all that was asked until the end is answered. */
  async run(end: AbortSignal): Promise<void> {
    setMaxListeners(0, end); // all of them wait for it
    const chatting = Array.from({ length: mostUsers }, (_, user) => this.#chat(user, end));
    const others = [
      repeat(10_000, end, async () => {
        await this.#ask(this.#newChat(longText), 32);
        this.counts.longPrompts += 1;
      }),
      repeat(700, end, () => this.#leave()),
      repeat(300, end, () => this.#poll()),
      repeat(500, end, () => this.#askWrong()),
      repeat(usersChangeMs, end, async () => {
        this.#users = fewestUsers + this.#random.below(mostUsers - fewestUsers + 1);
      }),
    ];
    await Promise.all([...chatting, ...others]);
    this.#agent.destroy();
  }

  async #chat(user: number, end: AbortSignal): Promise<void> {
    while (!end.aborted) {
      const chat = this.#newChat(shortText);
      const turns = 1 + this.#random.below(8);
      for (let turn = 0; turn < turns && !end.aborted && user < this.#users; turn += 1) {
        if (turn > 0) chat.push({ role: "user", content: OPEN_QUESTION });
        const { text } = await this.#ask(chat, 48);
        chat.push({ role: "assistant", content: text });
        await pause(this.#random.below(500), end);
      }
      await pause(500, end);
    }
  }

  #newChat(characters: number): ChatMessage[] {
    const { text, questions } = passage(characters, this.#random.below(2 ** 21));
    return [{ role: "user", content: ask(text, questions[0]?.question ?? OPEN_QUESTION) }];
  }

  async #ask(chat: readonly ChatMessage[], tokens: number): Promise<StreamedAnswer> {
    const answer = await this.#stream(chat, tokens);
    if (answer.outcome === "ok") this.counts.answers += 1;
    else this.faults.push(`a chat: ${answer.outcome} ${answer.error ?? ""}`);
    return answer;
  }

  /** Waits for its turn, reads, writes: it leaves within that, at a time of its own. */
  async #leave(): Promise<void> {
    const answer = await this.#stream(
      this.#newChat(shortText),
      2000,
      AbortSignal.timeout(1 + this.#random.below(4000)),
    );
    if (answer.outcome === "cut") this.counts.left += 1;
    else this.faults.push(`a client that leaves: ${answer.outcome} ${answer.error ?? ""}`);
  }

  #stream(
    messages: readonly ChatMessage[],
    outputTokens: number,
    signal = AbortSignal.timeout(stallMs),
  ): Promise<StreamedAnswer> {
    const { path, body } = chatRequest({ id: "", group: "", messages, outputTokens });
    return streamRequest({
      url: new URL(`${this.#url}${path}`),
      agent: this.#agent,
      apiKey: undefined,
      body: JSON.stringify({ ...body, stream: true }),
      expected: undefined,
      stallMs,
      signal,
    });
  }

  async #poll(): Promise<void> {
    const path = polled[this.#random.below(polled.length)]!; // within its length
    const answer = await fetch(`${this.#url}${path}`, { headers });
    await answer.arrayBuffer();
    if (answer.ok) this.counts.polls += 1;
    else this.faults.push(`${path}: ${answer.status}`);
  }

  async #askWrong(): Promise<void> {
    const [method, path, body] = wrongRequests[this.#random.below(wrongRequests.length)]!; // likewise
    const answer = await fetch(`${this.#url}${path}`, { method, headers, ...(body === undefined ? {} : { body }) });
    await answer.arrayBuffer();
    if (answer.status >= 400 && answer.status < 500) this.counts.refused += 1;
    else this.faults.push(`${method} ${path} ${body?.slice(0, 60)}: ${answer.status}`);
  }
}

async function repeat(everyMs: number, end: AbortSignal, work: () => Promise<void>): Promise<void> {
  while (!end.aborted) {
    await work();
    await pause(everyMs, end);
  }
}

/** Ends with the signal. */
async function pause(milliseconds: number, end: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, { signal: end }).catch(() => {});
}
