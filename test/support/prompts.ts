/** Prompts made of token ids: of exact lengths, sharing beginnings at random places. */
import { ask, sampleNotes } from "../../src/bench/notes/notes.ts";

/** A seeded generator of numbers in [0, 1): mulberry32. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Token ids of a text; `<|…|>` in it are special tokens. */
export async function tokenize(url: string, content: string): Promise<number[]> {
  const response = await fetch(`${url}/tokenize`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ content, parse_special: true }),
  });
  return ((await response.json()) as { tokens: number[] }).tokens;
}

/**
 * A chat prompt of exactly `tokens` tokens for the shipped model: notes, cut off where they must be, and a question about
 * the first of them. The model is sure of its answer, so that the last bits of its logits do not matter.
 */
export async function questionPrompt(
  url: string,
  options: { seed: number; tokens: number },
): Promise<{ prompt: number[]; answer: string }> {
  const { text, questions } = sampleNotes({ seed: options.seed, characters: options.tokens * 6 });
  const question = questions.find(({ kind }) => kind === "local");
  if (question === undefined) throw new Error(`the notes of seed ${options.seed} answer no question`);
  const [notes, end] = ask(text, question.question).split("\n\n");
  const head = await tokenize(url, `<|user|>\n${notes}`);
  const tail = await tokenize(url, `\n\n${end}<|end|>\n<|assistant|>\n`);
  return { prompt: [...head.slice(0, options.tokens - tail.length), ...tail], answer: question.answer };
}

/**
 * `count` prompts of `shortest` to `longest` tokens, lengths spread evenly over orders of magnitude. Most begin with a
 * random piece of an earlier prompt's beginning, cut anywhere.
 */
export async function branchingPrompts(
  url: string,
  options: { count: number; shortest: number; longest: number; seed: number },
): Promise<number[][]> {
  const random = seededRandom(options.seed);
  const text = sampleNotes({ seed: options.seed + 1_000_000, characters: options.longest * 12 }).text;
  const source = await tokenize(url, text);
  const prompts: number[][] = [];
  while (prompts.length < options.count) {
    const length = Math.round(options.shortest * (options.longest / options.shortest) ** random());
    const earlier = prompts[Math.floor(random() * prompts.length)];
    const shared = earlier === undefined || random() < 0.2 ? [] : earlier.slice(0, Math.floor(random() * length));
    const start = Math.floor(random() * (source.length - length));
    prompts.push([...shared, ...source.slice(start, start + length - shared.length)]);
  }
  return prompts;
}

/** Runs `work` on every item, `width` at a time; results in the items' order. */
export async function inParallel<Item, Result>(
  items: readonly Item[],
  width: number,
  work: (item: Item, index: number) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  let next = 0;
  const worker = async () => {
    for (let index = next++; index < items.length; index = next++) {
      results[index] = await work(items[index] as Item, index); // index < items.length
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  return results;
}
