/**
 * What do drafts (`--draft lookup`) bring an answer that quotes its prompt, and what do they cost one that does not?
 *
 *     npm run bench -- draft [--model FILE] [--threads 2] [--rounds 5] [--tokens 300]
 *
 * Two engines without server and channel, one of which drafts, asked by turns; who is first goes round. What they draw is given, so that
 * both write the same text and a small model writes what a large one would: the model computes and the sampler draws, and the text's
 * next token takes the place of what was drawn. `edit`: the prompt again, with every 15th word replaced. `prose`: a page of our docs
 * after another one. `random`: tokens of which no two stood together before.
 *
 * Tokens a second from the first to the last; medians over the rounds, and of the ratios within a round (`ratio` more is better). `cpuRatio` is of
 * processor time a token (less is better): with `--threads 1` it says what a machine without other work would show. A first round is left out.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { MeasuredRowCost } from "../src/engines/llama/process/row-cost.ts";
import { Sampler } from "../src/engines/llama/process/sampler.ts";
import { repositoryRoot, shippedModelPath } from "../test/support/repository.ts";
import { Rig, loadModel } from "../test/support/scheduler-rig.ts";
import { someTokens } from "../test/support/tokens.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: shippedModelPath },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
    tokens: { type: "string", default: "300" },
  },
});
const [threads, rounds, tokens] = [values.threads, values.rounds, values.tokens].map(Number) as [
  number,
  number,
  number,
];
const model = loadModel(values.model);

interface Text {
  readonly prompt: Uint32Array;
  readonly answer: Uint32Array;
}

const page = (name: string) => readFileSync(join(repositoryRoot, "docs", name), "utf8").slice(1000);
const tokensOf = (text: string) =>
  model.vocabulary.tokenize(text, { special: false, begin: false }).subarray(0, tokens);
const prose = page("eviction.md");
const edited = prose.replaceAll(/((?:\S+\s+){14})\S+/g, "$1something");
const texts: Readonly<Record<string, Text>> = {
  edit: { prompt: tokensOf(prose), answer: tokensOf(edited) },
  prose: { prompt: tokensOf(prose), answer: tokensOf(page("gpu.md")) },
  random: { prompt: someTokens(tokens, 1, 8000), answer: someTokens(tokens, 2, 8000) },
};

const rowCost = new MeasuredRowCost();
const shape = { contextTokens: 2 * tokens + 256, sequences: 4, layout: "streams", threads } as const;
const arms = { off: new Rig(model, shape), lookup: new Rig(model, { ...shape, rowCost }) };
type Arm = keyof typeof arms;

/** Draws what the answer says, at the cost of drawing. */
// oxlint-disable-next-line typescript/unbound-method -- called with its sampler below
const { sample } = Sampler.prototype;
let drawn: { readonly answer: Uint32Array; readonly at: number[]; readonly cpuMs: number[] } | undefined;
Sampler.prototype.sample = function (...given) {
  const token = sample.apply(this, given);
  if (drawn === undefined) return token;
  drawn.at.push(performance.now());
  drawn.cpuMs.push(cpuMs());
  return drawn.answer[drawn.at.length - 1]!; // no more are asked for
};

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

async function write(arm: Arm, { prompt, answer }: Text) {
  drawn = { answer, at: [], cpuMs: [] };
  const cache = { salt: "", read: false, save: false };
  const { events } = await arms[arm].ask(prompt, { maxTokens: answer.length, cache });
  const { at, cpuMs } = drawn;
  const from = (times: readonly number[]) => (times.at(-1)! - times[0]!) / (times.length - 1); // many were drawn
  const end = events.at(-1);
  const { draftedTokens = 0, acceptedTokens = 0 } = end?.kind === "end" ? end : {};
  return { tokensPerSecond: 1000 / from(at), cpuMs: from(cpuMs), draftedTokens, acceptedTokens };
}

function ratioOf({ off, lookup }: Readonly<Record<Arm, readonly number[]>>): number {
  return rounded(median(lookup.map((value, round) => value / off[round]!))); // there are as many of both
}

const figures: Record<string, object> = {};
for (const [name, text] of Object.entries(texts)) {
  const speeds = { off: [] as number[], lookup: [] as number[] };
  const cpu = { off: [] as number[], lookup: [] as number[] };
  let drafts = { drafted: 0, accepted: 0 };
  for (let round = 0; round <= rounds; round += 1) {
    for (const arm of round % 2 === 0 ? (["off", "lookup"] as const) : (["lookup", "off"] as const)) {
      const { tokensPerSecond, cpuMs, draftedTokens: drafted, acceptedTokens: accepted } = await write(arm, text);
      if (arm === "lookup") drafts = { drafted, accepted };
      if (round === 0) continue;
      speeds[arm].push(tokensPerSecond);
      cpu[arm].push(cpuMs);
    }
  }
  figures[name] = {
    off: rounded(median(speeds.off)),
    lookup: rounded(median(speeds.lookup)),
    ratio: ratioOf(speeds),
    cpuRatio: ratioOf(cpu),
    ...drafts,
  };
}
const conditions = { model: values.model.split("/").at(-1), threads, rounds, tokens };
printLine("draft", { ...figures, rowShare: rounded(rowCost.share) }, conditions);
for (const rig of Object.values(arms)) await rig.close();
