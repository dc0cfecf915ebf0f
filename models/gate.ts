/**
 * The gate of the shipped model: does a server answer questions about notes it has never seen?
 *
 *     node scripts/run-ts.mjs models/gate.ts [--url http://127.0.0.1:8080] [--questions 20] [--json FILE]
 *
 * Asks `--questions` of each kind at 2k and at 6k tokens, greedily, and counts answers that are exactly right. Several
 * questions share a document and differ only at the end of the prompt, so a server that caches prefixes reads it once.
 * Speaks plain HTTP to any OpenAI-compatible server that has `POST /tokenize`. Prints a Markdown table; exits with 1
 * when a gate fails and with 2 when the server could not be asked.
 */
import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { ask, CHARACTERS_PER_TOKEN, sampleNotes, type Kind, type Question } from "../src/bench/notes/notes.ts";

const LENGTHS = [2000, 6000] as const;
const KINDS: readonly Kind[] = ["local", "spill", "alias", "override"];
const GATES = [
  { kind: "local", tokens: 2000, atLeast: 0.95 },
  { kind: "local", tokens: 6000, atLeast: 0.85 },
  { kind: "spill", tokens: 2000, atLeast: 0.85 },
] as const;

/** Training draws its notes from seeds below 2^35, its own evaluation from 2^40 on. */
const FIRST_SEED = 2 ** 44;
/** Questions of each kind about one document: enough to share the work of reading it, few enough to vary the text. */
const PER_DOCUMENT = 5;
const REQUEST_TIMEOUT_MS = 120_000;

interface Cell {
  readonly kind: Kind;
  readonly tokens: number;
  asked: number;
  right: number;
  readonly wrong: { readonly question: string; readonly expected: string; readonly said: string }[];
}

class ServerError extends Error {}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      url: { type: "string", default: "http://127.0.0.1:8080" },
      json: { type: "string" },
      questions: { type: "string", default: "20" },
    },
  });
  const questions = Number(values.questions);
  if (!Number.isInteger(questions) || questions < 1) throw new Error("--questions wants a whole number above 0");

  const began = performance.now();
  const server = new Server(values.url);
  const cells: Cell[] = [];
  for (const tokens of LENGTHS) cells.push(...(await measure(server, tokens, questions)));
  const seconds = Math.round((performance.now() - began) / 1000);

  console.log(table(cells));
  const verdicts = GATES.map((gate) => ({ ...gate, share: shareOf(cells, gate.kind, gate.tokens) }));
  for (const { kind, tokens, atLeast, share } of verdicts) {
    const verdict = share >= atLeast ? "passed" : "FAILED";
    console.log(`${verdict}: ${kind} at ${tokens} tokens is ${percent(share)}, wanted ${percent(atLeast)}`);
  }
  console.log(
    `${server.requests} requests, ${server.cachedTokens} of ${server.promptTokens} prompt tokens cached, ${seconds} s`,
  );
  if (values.json !== undefined) {
    const { requests, promptTokens, cachedTokens } = server;
    const report = { url: values.url, seconds, requests, promptTokens, cachedTokens, cells, gates: verdicts };
    await writeFile(values.json, `${JSON.stringify(report, null, 2)}\n`);
  }
  return verdicts.every(({ share, atLeast }) => share >= atLeast) ? 0 : 1;
}

/** Asks until every kind has had its number of questions; some documents hold few corrections. */
async function measure(server: Server, tokens: number, questions: number): Promise<Cell[]> {
  const cells = KINDS.map((kind): Cell => ({ kind, tokens, asked: 0, right: 0, wrong: [] }));
  for (let seed = FIRST_SEED + tokens * 1000; cells.some((cell) => cell.asked < questions); seed++) {
    const notes = await notesOf(server, seed, tokens);
    for (const cell of cells) {
      const wanted = Math.min(PER_DOCUMENT, questions - cell.asked);
      for (const question of spread(ofKind(notes.questions, cell.kind), wanted)) {
        const said = await server.answer(ask(notes.text, question.question));
        cell.asked++;
        if (said === question.answer) cell.right++;
        else cell.wrong.push({ question: question.question, expected: question.answer, said });
      }
    }
  }
  return cells;
}

/** Notes whose length, as the server counts it, is at most `tokens` and at least nine tenths of it. */
async function notesOf(server: Server, seed: number, tokens: number) {
  let characters = tokens * CHARACTERS_PER_TOKEN;
  for (let attempt = 0; attempt < 5; attempt++) {
    const notes = sampleNotes({ seed, characters });
    const count = await server.count(notes.text);
    if (count <= tokens && count >= tokens * 0.9) return notes;
    characters = Math.floor((characters * tokens * 0.97) / count);
  }
  throw new Error(`no notes of about ${tokens} tokens from seed ${seed}: does the server's tokenizer fit the notes?`);
}

class Server {
  readonly #url: string;
  #model: string | undefined;
  requests = 0;
  promptTokens = 0;
  cachedTokens = 0;

  constructor(url: string) {
    this.#url = url.replace(/\/+$/, "");
  }

  async count(content: string): Promise<number> {
    return numberAt(await this.#send("/tokenize", { content }), ["count"]) ?? refuse("/tokenize", "no count");
  }

  /** The model's whole answer to one user turn, decoded greedily. */
  async answer(content: string): Promise<string> {
    this.#model ??= await this.#firstModel();
    const reply = await this.#send("/v1/chat/completions", {
      model: this.#model,
      messages: [{ role: "user", content }],
      temperature: 0,
      max_tokens: 32,
    });
    this.requests++;
    this.promptTokens += numberAt(reply, ["usage", "prompt_tokens"]) ?? 0;
    this.cachedTokens += numberAt(reply, ["usage", "prompt_tokens_details", "cached_tokens"]) ?? 0;
    const said = at(reply, ["choices", "0", "message", "content"]);
    return typeof said === "string" ? said : refuse("/v1/chat/completions", "no choices[0].message.content");
  }

  async #firstModel(): Promise<string> {
    const id = at(await this.#send("/v1/models"), ["data", "0", "id"]);
    return typeof id === "string" ? id : refuse("/v1/models", "no model");
  }

  async #send(path: string, body?: object): Promise<unknown> {
    const request = {
      method: body === undefined ? "GET" : "POST",
      headers: { "content-type": "application/json" },
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    };
    const response = await fetch(this.#url + path, request).catch((cause: unknown) => {
      throw new ServerError(`${this.#url}${path} could not be asked: is the server running?`, { cause });
    });
    if (!response.ok) throw new ServerError(`${path} answered ${response.status}: ${await response.text()}`);
    return response.json();
  }
}

function refuse(path: string, what: string): never {
  throw new ServerError(`${path} gave ${what}`);
}

/** The value at a path of keys in parsed JSON, or undefined. */
function at(value: unknown, keys: readonly string[]): unknown {
  let here = value;
  for (const key of keys) {
    if (typeof here !== "object" || here === null) return undefined;
    here = (here as Record<string, unknown>)[key];
  }
  return here;
}

function numberAt(value: unknown, keys: readonly string[]): number | undefined {
  const found = at(value, keys);
  return typeof found === "number" ? found : undefined;
}

function ofKind(questions: readonly Question[], kind: Kind): Question[] {
  return questions.filter((question) => question.kind === kind);
}

/** `count` items, evenly spread, so that the questions reach into every part of the notes. */
function spread<T>(items: readonly T[], count: number): T[] {
  return items.filter(
    (_, i) => Math.floor((i * count) / items.length) !== Math.floor(((i - 1) * count) / items.length),
  );
}

function shareOf(cells: readonly Cell[], kind: Kind, tokens: number): number {
  const cell = cells.find((c) => c.kind === kind && c.tokens === tokens);
  return cell === undefined || cell.asked === 0 ? 0 : cell.right / cell.asked;
}

function table(cells: readonly Cell[]): string {
  const lines = [`| notes | ${KINDS.join(" | ")} |`, `|---|${"---:|".repeat(KINDS.length)}`];
  for (const tokens of LENGTHS) {
    const row = cells.filter((cell) => cell.tokens === tokens);
    const shares = row.map(({ right, asked }) => `${percent(right / asked)} (${right}/${asked})`);
    lines.push(`| ${tokens} tokens | ${shares.join(" | ")} |`);
  }
  return lines.join("\n");
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof ServerError)) throw error;
  console.error(error.message);
  process.exitCode = 2;
}
