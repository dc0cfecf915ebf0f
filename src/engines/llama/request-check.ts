/**
 * What a request's fields may be, whoever sends it.
 */
import type { GenerateRequest, Sampling } from "../../engine.ts";
import { RepriseError } from "../../errors.ts";

/** @throws RepriseError BAD_REQUEST with the field. */
export function checkRequest(request: GenerateRequest): void {
  const { sampling, maxTokens, logprobs } = request;
  const must = (holds: boolean, field: string, needed: string) => {
    if (!holds) throw new RepriseError("BAD_REQUEST", `${field} must be ${needed}`, { field });
  };
  must(Number.isSafeInteger(maxTokens) && maxTokens >= 1, "max_tokens", "a whole number of at least 1");
  must(logprobs === undefined || (Number.isSafeInteger(logprobs) && logprobs >= 0), "logprobs", "a whole number");
  const ranges: [keyof Sampling, string, number, number][] = [
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
