/**
 * More users than sequences, each with a text of their own that grows: Reprise and llama-server with the same memory.
 *
 *     npm run bench -- household [--model FILE | --random 0.4b] [--memory 128MiB] [--users 24] [--sequences 4] [--rounds 6]
 *                                [--system 1500] [--history 1000] [--answer 32] [--restart-after 3] [--threads 2] [--seed 1]
 *                                [--server PROGRAM] [--json FILE]
 *
 * All users share a system prompt of `--system` tokens; each has notes of `--history` tokens and asks about them. In a round all of them
 * ask at once, and the next begins when the last answer has ended; a user's chat grows by the answer (`--answer` tokens, end or no end)
 * and the next question. Both servers are alive and are asked by turns, a round each: while one answers the other is idle, with all that it
 * had to save saved. After round `--restart-after` both are ended with SIGTERM and started again, Reprise over the same data directory.
 *
 * What is the same: model, requests (but for the servers' own answers in them), sequences, context, threads, and memory for what is in no
 * sequence (`--memory`, `--cache-ram`). Reprise has its disk besides, which is the product: llama-server forgets what its memory does not
 * hold, and everything at its end. Of each round: mean, median and 99th percentile of the time to the first token, which includes waiting
 * for a sequence, and the seconds from the first question to the last answer. Ratios are ours to llama-server's; smaller is better.
 */
import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { parseBytes } from "../src/bytes.ts";
import { ask } from "../src/bench/notes/notes.ts";
import { seedOf } from "../src/bench/notes/random.ts";
import { ServerCalls } from "../src/bench/server-calls.ts";
import { mean, median, percentile } from "../src/bench/statistics.ts";
import { streamAgent, streamRequest, type StreamedAnswer } from "../src/bench/stream-client.ts";
import { measureScale, type TokenScale } from "../src/bench/token-scale.ts";
import { type ChatMessage, chatRequest } from "../src/bench/workloads/chat-request.ts";
import { charactersOf, OPEN_QUESTION, passage, plainText } from "../src/bench/workloads/passage.ts";
import { stats } from "../test/support/client.ts";
import { shippedModelPath } from "../test/support/repository.ts";
import { type Arm, BothServers, byTurns } from "./support/both-servers.ts";
import { randomModel } from "./support/random-model.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: shippedModelPath },
    random: { type: "string" },
    memory: { type: "string", default: "128MiB" },
    users: { type: "string", default: "24" },
    sequences: { type: "string", default: "4" },
    rounds: { type: "string", default: "6" },
    system: { type: "string", default: "1500" },
    history: { type: "string", default: "1000" },
    answer: { type: "string", default: "32" },
    "restart-after": { type: "string", default: "3" },
    threads: { type: "string", default: "2" },
    seed: { type: "string", default: "1" },
    server: { type: "string" },
    json: { type: "string" },
  },
});
const settings = {
  users: Number(values.users),
  sequences: Number(values.sequences),
  rounds: Number(values.rounds),
  systemTokens: Number(values.system),
  historyTokens: Number(values.history),
  answerTokens: Number(values.answer),
  restartAfter: Number(values["restart-after"]),
  threads: Number(values.threads),
  seed: Number(values.seed),
};
const model = values.random === undefined ? values.model : randomModel(values.random);
/** A round may take as long as a slow machine needs for all prompts from their beginning. */
const stallMs = 30 * 60_000;
/** What is saved after a round is waited for so long at most. */
const settleMs = 120_000;

/** What is asked of the ratios. */
const bounds = { meanTtft: 1 / 5, totalSeconds: 1 / 2, meanTtftAfterRestart: 1 / 10 };

interface Round {
  readonly answers: readonly StreamedAnswer[];
  readonly seconds: number;
}

/** No request is called off. */
const untilTheEnd = new AbortController().signal;
setMaxListeners(0, untilTheEnd);

/** What one user has said and heard, and is going to ask. */
interface Chat {
  readonly messages: ChatMessage[];
  readonly questions: readonly string[];
}

// What a chat may come to: an answer that is read again may have more tokens than it was written with.
const longest = settings.systemTokens + settings.historyTokens + settings.rounds * (4 * settings.answerTokens + 64);
const contextTokens = Math.ceil((1.2 * longest) / 1024) * 1024;
const { sequences, threads } = settings;
{
  const room = { model, sequences, contextTokens, threads, memoryBytes: parseBytes(values.memory) };
  await using servers = await BothServers.start({ ...room, llamaServer: values.server });
  const { arms } = servers;
  const scale = await measureScale(new ServerCalls({ url: arms[0]!.url, key: undefined }), ""); // ours comes first
  const chats = new Map(arms.map(({ name }) => [name, chatsOf(scale)]));
  const rounds = new Map(arms.map(({ name }) => [name, [] as Round[]]));
  let restartSeconds = {};
  await byTurns(arms, settings.rounds, async ({ name, url }, round) => {
    const isFirst = [...rounds.values()].every((done) => done.length === round);
    if (isFirst && round === settings.restartAfter) restartSeconds = await servers.restart();
    if (isFirst && (round === 0 || round === settings.restartAfter)) await Promise.all(arms.map(warmUp));
    rounds.get(name)!.push(await allAsk(url, chats.get(name)!, round));
    if (name === "ours") await settled(url);
  });
  const [ours, llama] = [rounds.get("ours")!, rounds.get("llama")!];
  const ratio = ratiosOf(ours, llama);
  const held = Object.fromEntries(Object.entries(bounds).map(([name, most]) => [name, (ratio[name] ?? NaN) <= most]));
  const total = (of: readonly Round[]) => rounded(of.reduce((sum, { seconds }) => sum + seconds, 0));
  const totalSeconds = { ours: total(ours), llama: total(llama) };
  const perRound = { ours: ours.map(figuresOf), llama: llama.map(figuresOf) };
  const conditions = { model: model.split("/").at(-1), memory: values.memory, contextTokens, ...settings };
  printLine("household", { ratio, bounds, held, totalSeconds, restartSeconds, perRound }, conditions, values.json);
}

function chatsOf(scale: TokenScale): Chat[] {
  const text = plainText(charactersOf(settings.systemTokens, scale), seedOf(settings.seed, "system"));
  return Array.from({ length: settings.users }, (_, user) => {
    const notes = passage(charactersOf(settings.historyTokens, scale), seedOf(settings.seed, `user ${user}`));
    const asked = notes.questions.map(({ question }) => question);
    const questions = Array.from({ length: settings.rounds }, (_, i) => asked[i % asked.length] ?? OPEN_QUESTION);
    const first = { role: "user", content: ask(notes.text, questions[0]!) } as const; // there is a round
    return { messages: [{ role: "system", content: text }, first], questions };
  });
}

/** Every user asks at the same moment; their chats go on by what they are answered. */
async function allAsk(url: string, chats: readonly Chat[], round: number): Promise<Round> {
  const agent = streamAgent(new URL(url));
  const began = performance.now();
  const answers = await Promise.all(
    chats.map(async ({ messages, questions }, user) => {
      if (round > 0) messages.push({ role: "user", content: `Question: ${questions[round]}` });
      const id = `user ${user} round ${round}`;
      const { path, body } = chatRequest({ id, group: "", messages, outputTokens: settings.answerTokens });
      const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
      const asked = { url: new URL(`${url}${path}`), agent, apiKey: undefined, expected: undefined, stallMs };
      const answer = await streamRequest({ ...asked, body: JSON.stringify(streamed), signal: untilTheEnd });
      if (answer.outcome !== "ok" || answer.tokenAt.length === 0)
        throw new Error(`${url}, ${id}: ${answer.outcome} ${answer.error ?? "without a token"}`);
      messages.push({ role: "assistant", content: answer.text });
      return answer;
    }),
  );
  agent.destroy();
  return { answers, seconds: (performance.now() - began) / 1000 };
}

/** The first request after a start also pays for the model's pages. */
async function warmUp({ url }: Arm): Promise<void> {
  const body = JSON.stringify({ prompt: "Good morning.", max_tokens: 4 });
  const init = { method: "POST", headers: { "content-type": "application/json" }, body };
  await (await fetch(`${url}/v1/completions`, init)).text();
}

async function settled(url: string): Promise<void> {
  const end = performance.now() + settleMs;
  while (Number((await stats(url))["unsavedChunks"]) > 0) {
    if (performance.now() > end) throw new Error(`something was still to be saved after ${settleMs / 1000} s`);
    await sleep(100);
  }
}

function ttftsOf(rounds: readonly Round[]): number[] {
  return rounds.flatMap(({ answers }) => answers.map(({ sentAt, tokenAt }) => tokenAt[0]! - sentAt)); // each has one
}

function figuresOf(round: Round): object {
  const ttfts = ttftsOf([round]);
  const sum = (read: (answer: StreamedAnswer) => number | undefined) =>
    round.answers.reduce((total, answer) => total + (read(answer) ?? 0), 0);
  const promptTokens = sum((answer) => answer.promptTokens);
  const tiers = [...new Set(round.answers.flatMap(({ reused }) => Object.keys(reused ?? {})))];
  return {
    meanTtftMs: rounded(mean(ttfts)),
    p50TtftMs: rounded(median(ttfts)),
    p99TtftMs: rounded(percentile(ttfts, 0.99)),
    seconds: rounded(round.seconds),
    promptTokens,
    reusedTokens: sum((answer) => answer.cachedTokens),
    ...Object.fromEntries(tiers.map((tier) => [`${tier}Tokens`, sum(({ reused }) => reused?.[tier])])),
  };
}

function ratiosOf(ours: readonly Round[], llama: readonly Round[]): Record<string, number> {
  const seconds = (rounds: readonly Round[]) => rounds.reduce((sum, round) => sum + round.seconds, 0);
  const meanTtft = (from: number, to?: number) =>
    rounded(mean(ttftsOf(ours.slice(from, to))) / mean(ttftsOf(llama.slice(from, to))));
  const { restartAfter } = settings;
  return {
    meanTtft: meanTtft(0),
    ...(ours.length > 1 ? { meanTtftAfterFirstRound: meanTtft(1) } : {}),
    totalSeconds: rounded(seconds(ours) / seconds(llama)),
    ...(restartAfter < ours.length ? { meanTtftAfterRestart: meanTtft(restartAfter, restartAfter + 1) } : {}),
  };
}
