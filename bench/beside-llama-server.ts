/**
 * The embedded engine beside llama-server, built from the same source (bench/peers/build-llama-server.sh): both alive, asked by turns.
 *
 *     npm run bench -- beside-llama-server [--model FILE] [--slots 16] [--context 1024] [--threads 2] [--rounds 5]
 *                                          [--decode 1,2,4,8,16] [--tokens 64] [--prompts 500,3000]
 *                                          [--base CHECKOUT] [--server PROGRAM]
 *
 * `decode`: so many streams at a time of `--tokens` tokens, after prompts of some 40 that nobody has seen; tokens a second of all, from
 * each stream's first token to its last, and the gaps between two tokens. `first`: milliseconds to the first token of a prompt of so many words that
 * is new (`cold`), the same again (`resident`), and again after as many others as there are slots (`memory`).
 *
 * `--base` is another checkout of Reprise, built: a third arm. Medians over the rounds; `ratio` is ours to llama-server's within a round, and
 * larger is better for decoding, smaller for the rest. Who is first goes round. A first round is left out.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { StartedServer } from "../src/bench/started-server.ts";
import { median, percentile } from "../src/bench/statistics.ts";
import { commandPath, repositoryRoot, shippedModelPath } from "../test/support/repository.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: shippedModelPath },
    slots: { type: "string", default: "16" },
    context: { type: "string", default: "1024" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
    decode: { type: "string", default: "1,2,4,8,16" },
    tokens: { type: "string", default: "64" },
    prompts: { type: "string", default: "" },
    base: { type: "string" },
    server: { type: "string" },
  },
});
const numbers = (list: string) => list.split(",").filter(Boolean).map(Number);
const [slots, context, rounds, tokens] = [values.slots, values.context, values.rounds, values.tokens].map(Number) as [
  number,
  number,
  number,
  number,
];

interface Arm {
  readonly name: "ours" | "base" | "llama";
  readonly url: string;
}

interface Stream {
  readonly sentAt: number;
  /** When each token's event came. */
  readonly at: readonly number[];
}

const folder = mkdtempSync(join(tmpdir(), "reprise-beside-"));
const started: StartedServer[] = [];
let texts = 0;
try {
  const arms = await startAll();
  const figures: Record<string, unknown> = {};
  for (const streams of numbers(values.decode)) figures[`decode ${streams}`] = await measureDecode(arms, streams);
  for (const words of numbers(values.prompts)) figures[`first ${words}`] = await measureFirst(arms, words);
  const { model, threads } = values;
  printLine("beside-llama-server", figures, {
    model: model.split("/").at(-1),
    slots,
    context,
    threads,
    rounds,
    tokens,
  });
} finally {
  for (const server of started) await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
}

async function startAll(): Promise<Arm[]> {
  const build = join(repositoryRoot, "bench", "peers", "build-llama-server.sh");
  const server = values.server ?? execFileSync(build, { encoding: "utf8" }).trim().split("\n").at(-1)!;
  const reprise = (program: string, name: string) => (port: number) =>
    `${process.execPath} ${program} serve --port ${port} --data-dir ${join(folder, name)} --model ${values.model} ` +
    `--sequences ${slots} --context ${context} --threads ${values.threads} --memory 2GiB --gpu off`;
  const commands: [Arm["name"], (port: number) => string][] = [
    ["ours", reprise(commandPath, "ours")],
    [
      "llama",
      (port) =>
        `${server} --port ${port} -m ${values.model} -np ${slots} -c ${slots * context} -t ${values.threads} ` +
        `--cache-ram 2048 -fa on --no-webui`,
    ],
  ];
  if (values.base !== undefined)
    commands.push(["base", reprise(join(resolve(values.base), "dist", "cli", "main.js"), "base")]);
  const arms: Arm[] = [];
  for (const [i, [name, command]] of commands.entries()) {
    const port = 18_100 + i;
    const url = `http://127.0.0.1:${port}`;
    const running = await StartedServer.start(command(port));
    started.push(running);
    await running.ready((signal) => isReady(url, signal), AbortSignal.timeout(120_000));
    arms.push({ name, url });
  }
  return arms;
}

async function isReady(url: string, signal: AbortSignal): Promise<boolean> {
  try {
    const answer = await fetch(`${url}/health`, { signal: AbortSignal.any([signal, AbortSignal.timeout(2000)]) });
    await answer.text();
    return answer.ok;
  } catch {
    return false;
  }
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

/** What was answered is saved in the background. */
function settle(): Promise<void> {
  return new Promise((over) => setTimeout(over, 500));
}

async function byTurns(arms: readonly Arm[], work: (arm: Arm, round: number) => Promise<void>): Promise<void> {
  for (let round = 0; round <= rounds; round += 1)
    for (let i = 0; i < arms.length; i += 1) await work(arms[(round + i) % arms.length]!, round); // within its length
}

function ratioOf(of: ReadonlyMap<string, readonly number[]>): number {
  const theirs = of.get("llama")!;
  return rounded(median(of.get("ours")!.map((value, i) => value / theirs[i]!)));
}

async function ask(url: string, prompt: string, most: number): Promise<Stream> {
  const body = { prompt, max_tokens: most, temperature: 0, stream: true, ignore_eos: true };
  const sentAt = performance.now();
  const answer = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}: ${await answer.text()}`);
  const at: number[] = [];
  let rest = "";
  for await (const piece of answer.body!.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop()!;
    const now = performance.now();
    for (const line of lines)
      if (line.startsWith("data: {") && !line.includes('"finish_reason":"length"')) at.push(now);
  }
  return { sentAt, at };
}

/** Nobody has read it before. */
function textOf(words: number): string {
  texts += 1;
  const seed = texts + Date.now();
  return Array.from({ length: words }, (_, i) => `note${(seed * 31 + i * 7919) % 9973}`).join(" ");
}
