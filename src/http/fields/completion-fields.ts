/** The fields of `/v1/completions`. */
import * as v from "valibot";
import { answerFields } from "./answer-fields.ts";
import { type Api, type Fields, refused, used } from "./field.ts";
import { harmlessFields } from "./harmless-fields.ts";
import { integer, maximumLogprobs } from "./schemas.ts";
import { unsupportedFields } from "./unsupported-fields.ts";

const everyApi = ["OpenAI", "vLLM", "llama-server", "Ollama"] as const satisfies readonly Api[];

export const completionFields = {
  ...answerFields,
  prompt: used(everyApi, v.unknown(), "a string, token ids, or an array with one of these", "must be given"),
  logprobs: used(
    ["OpenAI", "vLLM", "llama-server"],
    integer(0, maximumLogprobs),
    `0 to ${maximumLogprobs} of the most likely tokens, and always the one that was chosen`,
    "off",
  ),

  ...unsupportedFields,
  echo: refused(["OpenAI", "vLLM"], [false], "answers do not repeat the prompt"),
  suffix: refused(["OpenAI", "vLLM", "Ollama"], [""], "the middle of a text cannot be filled in"),
  add_special_tokens: refused(["vLLM"], [true], "send token ids"),
  prompt_embeds: refused(["vLLM"], [], "this server reads only text and tokens"),

  ...harmlessFields,
} as const satisfies Fields;
