/** What chats and completions of OpenAI's API have in common: everything but the prompt and how logprobs are asked for. */
import type { GenerateRequest, ModelInfo, Sampling, TokenBias } from "../../engine.ts";
import { type answerFields, maximumStops } from "../fields/answer-fields.ts";
import { type Body, refuse, type Values } from "../fields/field.ts";
import { isToken, toTokens } from "../fields/tokens.ts";
import type { ParsedRequest } from "./form.ts";
import type { OpenAiOptions } from "./openai-answer.ts";

const maximumStopLength = 1024;

type AnswerValues = Values<typeof answerFields>;

export function toRequest(
  fields: AnswerValues,
  prompt: GenerateRequest["prompt"],
  logprobs: number | undefined,
  model: ModelInfo,
): ParsedRequest<OpenAiOptions> {
  if (fields.reprise?.reuse === "anywhere") {
    refuse("reprise.reuse", 'cannot be "anywhere": this build reuses prefixes only');
  }
  const { include_usage: includeUsage, continuous_usage_stats: continuous } = fields.stream_options ?? {};
  if (continuous === true && includeUsage !== true) {
    refuse("stream_options.continuous_usage_stats", "needs include_usage: true");
  }
  return {
    model: fields.model ?? undefined,
    stream: fields.stream ?? false,
    cacheSalt: fields.cache_salt ?? undefined,
    read: fields.reprise?.read ?? fields.cache_prompt ?? true,
    save: fields.reprise?.save ?? true,
    options: { includeUsage: continuous === true ? "always" : (includeUsage ?? false) },
    generate: {
      prompt,
      sampling: toSampling(fields, model),
      maxTokens: toLimit(fields, model),
      stop: toStops(fields.stop),
      ...(fields.stop_token_ids?.length && {
        stopTokens: [...toTokens(fields.stop_token_ids, "stop_token_ids", model)],
      }),
      ...(fields.min_tokens && { minTokens: fields.min_tokens }),
      ignoreEnd: fields.ignore_eos ?? false,
      ...(logprobs !== undefined && { logprobs }),
    },
  };
}

function toLimit(fields: AnswerValues, model: ModelInfo): number {
  const limit = fields.max_completion_tokens ?? fields.max_tokens ?? fields.n_predict ?? -1;
  return limit === -1 ? model.contextTokens : limit;
}

function toSampling(fields: AnswerValues, model: ModelInfo): Sampling {
  const seed = fields.seed ?? -1;
  const logitBias = toBiases(fields.logit_bias ?? {}, model);
  return {
    temperature: fields.temperature ?? 1,
    topK: Math.max(0, fields.top_k ?? 0), // vLLM's clients send -1 for "off"
    topP: fields.top_p ?? 1,
    minP: fields.min_p ?? 0,
    repeatPenalty: fields.repeat_penalty ?? fields.repetition_penalty ?? 1,
    frequencyPenalty: fields.frequency_penalty ?? 0,
    presencePenalty: fields.presence_penalty ?? 0,
    // OpenAI's seeds have 64 bits, the sampler's 32. To vLLM and llama-server, -1 is none.
    ...(seed !== -1 && { seed: Number(BigInt.asUintN(32, BigInt(seed))) }),
    ...(logitBias.length > 0 && { logitBias }),
  };
}

/** OpenAI's `{"ID": bias}` and llama-server's `[[ID, bias]]`. */
function toBiases(given: Body | readonly unknown[], model: ModelInfo): TokenBias[] {
  const pairs = Array.isArray(given) ? (given as unknown[]) : Object.entries(given as Body);
  return pairs.map((pair, index) => {
    const at = Array.isArray(given) ? `logit_bias[${index}]` : "logit_bias";
    if (!Array.isArray(pair) || pair.length !== 2) return refuse(at, "must be a pair of a token id and a bias");
    const [id, bias] = pair as [unknown, unknown];
    const token = typeof id === "string" && /^\d{1,10}$/.test(id) ? Number(id) : id;
    if (!isToken(token, model))
      return refuse(at, `must name tokens by their ids, from 0 to ${model.vocabularySize - 1}`);
    if (bias === false) return [token, -Infinity];
    if (typeof bias !== "number" || !(Math.abs(bias) <= 100)) {
      return refuse(at, "must have biases from -100 to 100, or false for tokens that are never to come");
    }
    return [token, bias];
  });
}

function toStops(stop: unknown): string[] {
  if (stop === undefined || stop === null) return [];
  const stops: unknown[] = Array.isArray(stop) ? stop : [stop];
  if (stops.length > maximumStops) refuse("stop", `has more than ${maximumStops} texts`);
  return stops.map((text, index) => {
    const field = Array.isArray(stop) ? `stop[${index}]` : "stop";
    if (typeof text !== "string") return refuse(field, "must be a string");
    if (text === "") return refuse(field, "must not be empty");
    return text.length <= maximumStopLength ? text : refuse(field, `is longer than ${maximumStopLength} characters`);
  });
}
