/** Prompts and token ids in bodies. */
import type { ModelInfo } from "../../engine.ts";
import { refuse } from "./field.ts";

/** A prompt is a text, token ids, or an array with one of these. */
export function toPrompt(prompt: unknown, model: ModelInfo): string | Uint32Array {
  if (typeof prompt === "string") return prompt;
  if (!Array.isArray(prompt)) return refuse("prompt", "must be a string or an array of token ids");
  const [first] = prompt as unknown[];
  if (prompt.length === 1 && typeof first === "string") return first;
  if (prompt.length === 1 && Array.isArray(first)) return toTokens(first, "prompt[0]", model);
  if (typeof first === "string" || Array.isArray(first)) return refuse("prompt", "has several prompts; send one each");
  return toTokens(prompt, "prompt", model);
}

export function toTokens(ids: readonly unknown[], field: string, model: ModelInfo): Uint32Array {
  if (ids.length === 0) refuse(field, "must not be empty");
  const tokens = new Uint32Array(ids.length);
  for (const [index, id] of ids.entries()) {
    if (!isToken(id, model)) refuse(`${field}[${index}]`, `must be a token id from 0 to ${model.vocabularySize - 1}`);
    tokens[index] = id;
  }
  return tokens;
}

export function isToken(id: unknown, model: ModelInfo): id is number {
  return typeof id === "number" && Number.isInteger(id) && id >= 0 && id < model.vocabularySize;
}
