/** What the tokenizer's addresses are sent. */
import type { ModelInfo } from "../../engine.ts";
import { readerOf, refuse } from "../fields/field.ts";
import { detokenizeFields, tokenizeFields } from "../fields/tokenizer-fields.ts";
import { toTokens } from "../fields/tokens.ts";

const readTokenize = readerOf(tokenizeFields);
const readDetokenize = readerOf(detokenizeFields);

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
