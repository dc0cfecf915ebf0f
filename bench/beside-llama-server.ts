/**
 * The embedded engine beside llama-server, built from the same source (bench/peers/build-llama-server.sh): both alive, asked by turns.
 *
 *     npm run bench -- beside-llama-server [--model FILE | --random 0.4b] [--slots 16] [--context 1024] [--threads 2] [--rounds 5]
 *                                          [--decode 1,2,4,8,16] [--tokens 64] [--prompts 500,3000]
 *                                          [--gaps 7000] [--streams 4]
 *                                          [--base CHECKOUT] [--server PROGRAM] [--json FILE]
 *
 * `decode`: so many streams at a time of `--tokens` tokens, after prompts of some 40 that nobody has seen; tokens a second of all, from
 * each stream's first token to its last, and the gaps between two tokens. `first`: milliseconds to the first token of a prompt of so many words that
 * is new (`cold`), the same again (`resident`), and again after as many others as there are slots (`memory`). `gaps`: `--streams` answers
 * run, and a new prompt of so many tokens arrives; the gaps between their tokens before it comes (`quiet`) and while it is read, and how
 * fast it is read beside them and alone. That takes a slot more than there are streams.
 *
 * `--base` is another checkout of Reprise, built: a third arm. Medians over the rounds, gaps of all rounds together; `ratio` is ours to
 * llama-server's within a round, and larger is better for tokens a second, smaller for the rest. Who is first goes round. A first
 * round is left out. `--random` is a model of random weights (support/random-model.ts).
 */
import { parseArgs } from "node:util";
import { median, percentile } from "../src/bench/statistics.ts";
import { shippedModelPath } from "../test/support/repository.ts";
import { type Arm, BothServers, byTurns as inTurns } from "./support/both-servers.ts";
import { randomModel } from "./support/random-model.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: shippedModelPath },
    random: { type: "string" },
    slots: { type: "string", default: "16" },
    context: { type: "string", default: "1024" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
    decode: { type: "string", default: "1,2,4,8,16" },
    tokens: { type: "string", default: "64" },
    prompts: { type: "string", default: "" },
    gaps: { type: "string", default: "" },
    streams: { type: "string", default: "4" },
    base: { type: "string" },
    server: { type: "string" },
    json: { type: "string" },
  },
});
const numbers = (list: string) => list.split(",").filter(Boolean).map(Number);
const [slots, context, threads, rounds, tokens, streams] = [
  values.slots,
  values.context,
  values.threads,
  values.rounds,
  values.tokens,
  values.streams,
].map(Number) as [number, number, number, number, number, number];
if (values.gaps !== "" && streams >= slots) throw new Error("--gaps needs more --slots than --streams");
const model = values.random === undefined ? values.model : randomModel(values.random);

interface Stream {
  readonly sentAt: number;
  /** When each token's event came. */
  readonly at: readonly number[];
}

const room = { model, sequences: slots, contextTokens: context, threads, memoryBytes: 2 * 2 ** 30 };
let texts = 0;
{
  await using servers = await BothServers.start({ ...room, base: values.base, llamaServer: values.server });
  const { arms } = servers;
  const figures: Record<string, unknown> = {};
  for (const count of numbers(values.decode)) figures[`decode ${count}`] = await measureDecode(arms, count);
  for (const words of numbers(values.prompts)) figures[`first ${words}`] = await measureFirst(arms, words);
  for (const length of numbers(values.gaps)) figures[`gaps ${length}`] = await measureGaps(arms, length);
  const conditions = { model: model.split("/").at(-1), slots, context, threads, rounds, tokens, streams };
  printLine("beside-llama-server", figures, conditions, values.json);
}

async function measureDecode(arms: readonly Arm[], streams: number): Promise<object> {
  const rates = new Map<string, number[]>(arms.map(({ name }) => [name, []]));
  const gaps = new Map<string, number[]>(arms.map(({ name }) => [name, []]));
  await byTurns(arms, async ({ name, url }, round) => {
    const answers = await Promise.all(Array.from({ length: streams }, () => ask(url, textOf(20), tokens)));
    const perStream = answers.map(({ at }) => ((tokens - 1) * 1000) / (at.at(-1)! - at[0]!));
    if (round === 0) return;
    rates.get(name)!.push(perStream.reduce((sum, rate) => sum + rate, 0));
    for (const { at } of answers) gaps.get(name)!.push(...at.slice(1).map((time, i) => time - at[i]!));
  });
  return {
    ...Object.fromEntries(
      arms.map(({ name }) => {
        const sorted = gaps.get(name)!.toSorted((a, b) => a - b);
        const of = (share: number) => rounded(percentile(sorted, share));
        return [name, { tokensPerSecond: rounded(median(rates.get(name)!)), gapP50: of(0.5), gapP99: of(0.99) }];
      }),
    ),
    ratio: ratioOf(rates),
  };
}

async function measureFirst(arms: readonly Arm[], words: number): Promise<object> {
  const kinds = ["cold", "resident", "memory"] as const;
  const taken = Object.fromEntries(
    kinds.map((kind) => [kind, new Map<string, number[]>(arms.map(({ name }) => [name, []]))]),
  );
  await byTurns(arms, async ({ name, url }, round) => {
    const text = textOf(words);
    const firstOf = async () => {
      const { at, sentAt } = await ask(url, text, 2);
      return at[0]! - sentAt;
    };
    const cold = await firstOf();
    await settle();
    const resident = await firstOf();
    for (let i = 0; i < slots; i += 1) await ask(url, textOf(30), 1);
    await settle();
    const memory = await firstOf();
    if (round > 0)
      for (const [kind, ms] of Object.entries({ cold, resident, memory })) taken[kind]!.get(name)!.push(ms);
  });
  return Object.fromEntries(
    kinds.map((kind) => [
      kind,
      {
        ...Object.fromEntries(arms.map(({ name }) => [name, rounded(median(taken[kind]!.get(name)!))])),
        ratio: ratioOf(taken[kind]!),
      },
    ]),
  );
}

async function measureGaps(arms: readonly Arm[], length: number): Promise<object> {
  const kinds = ["quiet", "beside"] as const;
  const gaps = new Map(arms.map(({ name }) => [name, { quiet: [] as number[], beside: [] as number[] }]));
  const read = Object.fromEntries(
    ["beside", "alone"].map((how) => [how, new Map<string, number[]>(arms.map(({ name }) => [name, []]))]),
  );
  await byTurns(arms, async ({ name, url }, round) => {
    const alone = await readingOf(url, length);
    const running = Array.from({ length: streams }, () => runStream(url, textOf(20)));
    await Promise.all(running.map((stream) => stream.began));
    const quietFrom = performance.now();
    await settle();
    const beside = await readingOf(url, length);
    for (const stream of running) await stream.leave();
    if (round === 0) return;
    for (const [how, { from, to }] of Object.entries({ beside, alone }))
      read[how]!.get(name)!.push((length * 1000) / (to - from));
    const own = gaps.get(name)!;
    for (const { at } of running) {
      own.quiet.push(...gapsWithin(at, quietFrom, beside.from));
      own.beside.push(...gapsWithin(at, beside.from, beside.to));
    }
  });
  const figuresOf = ({ name }: Arm) => {
    const figures: Record<string, number> = {};
    for (const kind of kinds) {
      const all = gaps.get(name)![kind];
      for (const [what, share] of Object.entries({ P50: 0.5, P99: 0.99, Max: 1 }))
        figures[`${kind}Gap${what}`] = rounded(percentile(all, share));
    }
    for (const [how, rates] of Object.entries(read))
      figures[`${how}TokensPerSecond`] = rounded(median(rates.get(name)!));
    return figures;
  };
  return {
    ...Object.fromEntries(arms.map((arm) => [arm.name, figuresOf(arm)])),
    ratio: Object.fromEntries(Object.entries(read).map(([how, rates]) => [`${how}TokensPerSecond`, ratioOf(rates)])),
  };
}

/** A new prompt of so many tokens: from when it is sent to its first token. */
async function readingOf(url: string, length: number): Promise<{ readonly from: number; readonly to: number }> {
  const { sentAt, at } = await ask(url, await tokensOf(url, length), 2);
  return { from: sentAt, to: at[0]! }; // one was asked for
}

/** The gaps of which any part lies between two times. */
function gapsWithin(at: readonly number[], from: number, to: number): number[] {
  return at.slice(1).flatMap((time, i) => (time > from && at[i]! < to ? [time - at[i]!] : []));
}

/** An answer that goes on until somebody has had enough of it. `began` resolves with its tenth token. */
function runStream(url: string, prompt: string) {
  const at: number[] = [];
  let hasLeft = false;
  let begin: () => void;
  const began = new Promise<void>((resolve) => (begin = resolve));
  const listen = async () => {
    for await (const time of tokenTimes(url, prompt, context - 256)) {
      at.push(time);
      if (at.length === 10) begin();
      if (hasLeft) return;
    }
    throw new Error("an answer ended before the prompt beside it was read: give more --context");
  };
  const ended = listen();
  const leave = () => {
    hasLeft = true;
    return ended;
  };
  return { at, began, leave };
}

/** What was answered is saved in the background. */
function settle(): Promise<void> {
  return new Promise((over) => setTimeout(over, 500));
}

/** One round more than are counted. */
function byTurns(arms: readonly Arm[], work: (arm: Arm, round: number) => Promise<void>): Promise<void> {
  return inTurns(arms, rounds + 1, work);
}

function ratioOf(of: ReadonlyMap<string, readonly number[]>): number {
  const theirs = of.get("llama")!;
  return rounded(median(of.get("ours")!.map((value, i) => value / theirs[i]!)));
}

async function ask(url: string, prompt: string | readonly number[], most: number): Promise<Stream> {
  const at: number[] = [];
  const sentAt = performance.now();
  for await (const time of tokenTimes(url, prompt, most)) at.push(time);
  return { sentAt, at };
}

/** When each token of an answer comes, as it comes. Whoever does not want the rest ends the answer. */
async function* tokenTimes(url: string, prompt: string | readonly number[], most: number): AsyncGenerator<number> {
  const leave = new AbortController();
  const body = { prompt, max_tokens: most, temperature: 0, stream: true, ignore_eos: true };
  const answer = await post(url, "/v1/completions", body, leave.signal);
  try {
    let rest = "";
    for await (const piece of answer.body!.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + piece).split("\n");
      rest = lines.pop()!;
      const now = performance.now();
      for (const line of lines) if (line.startsWith("data: {") && !line.includes('"finish_reason":"length"')) yield now;
    }
  } finally {
    leave.abort();
  }
}

async function post(url: string, path: string, body: object, signal?: AbortSignal): Promise<Response> {
  const init = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(`${url}${path}`, { ...init, ...(signal === undefined ? {} : { signal }) });
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}: ${await answer.text()}`);
  return answer;
}

/** So many tokens that nobody has read before. */
async function tokensOf(url: string, count: number): Promise<number[]> {
  const answer = await post(url, "/tokenize", { content: textOf(count) }); // a word has a token at least
  return ((await answer.json()) as { tokens: number[] }).tokens.slice(0, count);
}

/** Nobody has read it before. */
function textOf(words: number): string {
  texts += 1;
  const seed = texts + Date.now();
  return Array.from({ length: words }, (_, i) => `note${(seed * 31 + i * 7919) % 9973}`).join(" ");
}
