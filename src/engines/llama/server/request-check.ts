/**
 * What a request's fields may be, whoever sends it.
 */
import { type GenerateRequest, type ModelInfo, promptTooLong, type Sampling } from "../../../engine.ts";
import { RepriseError } from "../../../errors.ts";

/** @throws RepriseError BAD_REQUEST with the field. */
export function checkRequest(request: GenerateRequest, { vocabularySize }: ModelInfo): void {
  const { sampling, maxTokens, minTokens = 0, logprobs, stopTokens = [] } = request;
  const must = (holds: boolean, field: string, needed: string) => {
    if (!holds) throw new RepriseError("BAD_REQUEST", `${field} must be ${needed}`, { field });
  };
  must(Number.isSafeInteger(maxTokens) && maxTokens >= 1, "max_tokens", "a whole number of at least 1");
  must(Number.isSafeInteger(minTokens) && minTokens >= 0, "min_tokens", "a whole number of at least 0");
  must(logprobs === undefined || (Number.isSafeInteger(logprobs) && logprobs >= 0), "logprobs", "a whole number");
  checkTokens(stopTokens, vocabularySize, "stop_token_ids");
  checkTokens(sampling.logitBias?.map(([token]) => token) ?? [], vocabularySize, "logit_bias");
  const ranges: [Exclude<keyof Sampling, "logitBias">, string, number, number][] = [
    ["temperature", "temperature", 0, 100],
    ["topK", "top_k", 0, 2 ** 31 - 1],
    ["topP", "top_p", 0, 1],
    ["minP", "min_p", 0, 1],
    ["repeatPenalty", "repeat_penalty", 0.01, 100],
    ["frequencyPenalty", "frequency_penalty", -100, 100],
    ["presencePenalty", "presence_penalty", -100, 100],
    ["seed", "seed", 0, 2 ** 32 - 1],
  ];
  for (const [key, field, least, most] of ranges) {
    const value = sampling[key];
    must(value === undefined || (value >= least && value <= most), field, `from ${least} to ${most}`);
  }
}

/** @throws RepriseError BAD_REQUEST or PROMPT_TOO_LONG for tokens that cannot be a prompt of this model. */
export function checkPrompt(tokens: Uint32Array, { vocabularySize, contextTokens }: ModelInfo): void {
  checkTokens(tokens, vocabularySize, "prompt");
  if (tokens.length === 0) throw new RepriseError("BAD_REQUEST", "The prompt is empty", { field: "prompt" });
  if (tokens.length < contextTokens) return;
  throw promptTooLong(tokens.length, contextTokens);
}

/** @throws RepriseError BAD_REQUEST for a token that the vocabulary does not have. */
export function checkTokens(tokens: Uint32Array | readonly number[], vocabularySize: number, field: string): void {
  const wrong = tokens.find((token) => !(token >= 0 && token < vocabularySize));
  if (wrong === undefined) return;
  throw new RepriseError("BAD_REQUEST", `Token ${wrong} is not in the vocabulary of ${vocabularySize}`, { field });
}

/** @throws RepriseError PROMPT_TOO_LONG for a text that could not fit into the context, whatever it says. */
export function checkTextBytes(text: string, { longestTextBytes, contextTokens }: ModelInfo, field?: string): void {
  const bytes = Buffer.byteLength(text);
  if (bytes <= longestTextBytes) return;
  throw new RepriseError(
    "PROMPT_TOO_LONG",
    `The text has ${bytes} bytes; a context of ${contextTokens} tokens holds ${longestTextBytes} at most`,
    field === undefined ? {} : { field },
  );
}
