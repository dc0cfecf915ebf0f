/** What the tokenizer's addresses, `/cache/pin` and `/cache/prefetch` are sent. */
import * as v from "valibot";
import type { ModelInfo } from "../../engine.ts";
import { parse, readerOf, refuse } from "../fields/field.ts";
import { text } from "../fields/schemas.ts";
import { detokenizeFields, tokenizeFields } from "../fields/tokenizer-fields.ts";
import { toPrompt, toTokens } from "../fields/tokens.ts";

const readTokenize = readerOf(tokenizeFields);
const readDetokenize = readerOf(detokenizeFields);

const prefetchSchema = v.object({ prompt: v.unknown(), cache_salt: text(1024) });
const pinSchema = v.object({
  ...prefetchSchema.entries,
  seconds: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(3600)),
});

export interface ParsedTokenize {
  readonly model: string | undefined;
  readonly text: string;
  readonly begin: boolean;
  readonly special: boolean;
  readonly withPieces: boolean;
}

/** The body of `/tokenize`, with llama-server's defaults. @throws RepriseError BAD_REQUEST with the field. */
export function parseTokenize(body: unknown): ParsedTokenize {
  const fields = readTokenize(body);
  return {
    model: fields.model ?? undefined,
    text: fields.content ?? fields.prompt ?? refuse("content", "is missing: send the text as content"),
    begin: fields.add_special ?? fields.add_special_tokens ?? false,
    special: fields.parse_special ?? true,
    withPieces: fields.with_pieces ?? false,
  };
}

/** The body of `/detokenize`. @throws RepriseError BAD_REQUEST with the field. */
export function parseDetokenize(
  body: unknown,
  model: ModelInfo,
): { readonly model: string | undefined; readonly tokens: Uint32Array } {
  const fields = readDetokenize(body);
  if (!Array.isArray(fields.tokens)) refuse("tokens", "must be an array of token ids");
  return { model: fields.model ?? undefined, tokens: toTokens(fields.tokens, "tokens", model) };
}

/** The body of `/cache/prefetch`. @throws RepriseError BAD_REQUEST with the field. */
export function parsePrefetch(
  body: unknown,
  model: ModelInfo,
): { prompt: string | Uint32Array; cacheSalt: string | undefined } {
  const { prompt, cache_salt: cacheSalt } = parse(prefetchSchema, body);
  return { prompt: toPrompt(prompt, model), cacheSalt: cacheSalt ?? undefined };
}

/** The body of `/cache/pin`. @throws RepriseError BAD_REQUEST with the field. */
export function parsePin(
  body: unknown,
  model: ModelInfo,
): { prompt: string | Uint32Array; seconds: number; cacheSalt: string | undefined } {
  const { prompt, seconds, cache_salt: cacheSalt } = parse(pinSchema, body);
  return { prompt: toPrompt(prompt, model), seconds, cacheSalt: cacheSalt ?? undefined };
}
