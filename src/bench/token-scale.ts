/** How many characters a server's tokens have, so that workloads can ask for texts of so many tokens. */
import type { ServerCalls } from "./server-calls.ts";

export interface TokenScale {
  readonly charactersPerToken: number;
  /** Where the figure comes from, in words. */
  readonly source: string;
}

/** Ordinary prose with names and numbers, as the workloads write it. */
const sampleText = Array.from(
  { length: 12 },
  (_, line) =>
    `Note ${line + 1}. The library in ${["Oslo", "Lima", "Kyoto"][line % 3]} opened its reading room in ${1890 + line * 7}, ` +
    "and everyone who worked there remembers the long tables, the lamps and the quiet.",
).join("\n");

/** Measured by `/tokenize`, else by the usage of one completion, else taken to be 4, and said so. */
export async function measureScale(calls: ServerCalls, model: string): Promise<TokenScale> {
  // llama-server and Reprise read `content`, vLLM reads `model` and `prompt`.
  const tokenized = await calls.json("POST", "/tokenize", { content: sampleText, prompt: sampleText, model });
  const counted = numberIn(tokenized, "count") ?? lengthIn(tokenized, "tokens");
  if (counted !== undefined) return scale(counted, "/tokenize");

  const completion = await calls.json("POST", "/v1/completions", { model, prompt: sampleText, max_tokens: 1 });
  const used = numberIn(fieldIn(completion, "usage"), "prompt_tokens");
  if (used !== undefined) return scale(used, "the usage of one completion");
  return { charactersPerToken: 4, source: "taken to be 4: the server neither tokenizes nor tells its usage" };
}

function scale(tokens: number, source: string): TokenScale {
  return { charactersPerToken: sampleText.length / tokens, source };
}

function fieldIn(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function numberIn(value: unknown, name: string): number | undefined {
  const found = fieldIn(value, name);
  return typeof found === "number" && found > 0 ? found : undefined;
}

function lengthIn(value: unknown, name: string): number | undefined {
  const found = fieldIn(value, name);
  return Array.isArray(found) && found.length > 0 ? found.length : undefined;
}
