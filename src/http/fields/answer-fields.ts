/** Fields that chats and completions share and that do what their API says. */
import * as v from "valibot";
import { type Api, used } from "./field.ts";
import { anyObject, choiceOf, flag, integer, number, objectOf, text, tokenLimit } from "./schemas.ts";

const everyApi = ["OpenAI", "vLLM", "llama-server", "Ollama"] as const satisfies readonly Api[];
const openAiAndServers = ["OpenAI", "vLLM", "llama-server"] as const satisfies readonly Api[];
const servers = ["vLLM", "llama-server"] as const satisfies readonly Api[];

/** Most biases of one request: as many as OpenAI's limit is said to be, and some. */
const maximumBiases = 1024;
export const maximumStops = 16;
const maximumStopTokens = 128;

export const answerFields = {
  model: used(
    everyApi,
    text(512),
    "`default`, or the file's name with or without `.gguf`; any other name is a 404",
    "the loaded model",
  ),
  stream: used(everyApi, flag, "true: the answer in pieces, as server-sent events", "false"),
  stream_options: used(
    everyApi,
    objectOf({ include_usage: flag, continuous_usage_stats: flag }),
    "`include_usage`: a last chunk with the usage; `continuous_usage_stats` (vLLM, only with `include_usage`): the usage so far in every chunk. `include_obfuscation` (OpenAI) is ignored: nothing is padded",
    "neither",
  ),
  max_completion_tokens: used(
    openAiAndServers,
    tokenLimit,
    "most tokens to write, at least 1; -1 is no limit. Takes precedence over the other two names",
    "what the context leaves",
  ),
  max_tokens: used(
    ["OpenAI, old", "vLLM", "llama-server", "Ollama"],
    tokenLimit,
    "the same; takes precedence over `n_predict`",
  ),
  n_predict: used(["llama-server"], tokenLimit, "the same"),
  min_tokens: used(
    ["vLLM"],
    integer(0, 2 ** 31 - 1),
    "tokens to write before the model, a `stop` text or one of `stop_token_ids` may end the answer",
    "0",
  ),
  temperature: used(everyApi, number(0, 2), "0 to 2; 0 takes the most likely token", "1"),
  top_p: used(everyApi, number(0, 1), "0 to 1", "1"),
  top_k: used(servers, integer(-1, 2 ** 31 - 1), "an integer; 0 and -1 are off", "off"),
  min_p: used(servers, number(0, 1), "0 to 1", "0"),
  repeat_penalty: used(["llama-server"], number(0.01, 10), "0.01 to 10, over the last 64 tokens", "1"),
  repetition_penalty: used(["vLLM"], number(0.01, 10), "the same"),
  frequency_penalty: used(everyApi, number(-2, 2), "-2 to 2, over the answer", "0"),
  presence_penalty: used(everyApi, number(-2, 2), "-2 to 2, over the answer", "0"),
  logit_bias: used(
    openAiAndServers,
    v.nullish(
      v.union(
        [
          v.pipe(v.array(v.unknown()), v.maxLength(maximumBiases)),
          v.pipe(
            anyObject,
            v.check((biases) => Object.keys(biases).length <= maximumBiases),
          ),
        ],
        `must be an object or an array of at most ${maximumBiases} biases`,
      ),
    ),
    `\`{"ID": bias}\` or \`[[ID, bias]]\`, up to ${maximumBiases}; -100 to 100, or false for never. Texts instead of ids are refused`,
    "none",
  ),
  seed: used(
    everyApi,
    integer(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
    "an integer, of which the lowest 32 bits count; -1 is random",
    "random",
  ),
  stop: used(
    everyApi,
    v.nullish(v.unknown()),
    `a string or up to ${maximumStops}, of 1 to 1,024 characters; the answer ends before it`,
    "none",
  ),
  stop_token_ids: used(
    ["vLLM"],
    v.nullish(v.pipe(v.array(v.number()), v.maxLength(maximumStopTokens))),
    `up to ${maximumStopTokens} token ids; the answer ends before such a token`,
    "none",
  ),
  ignore_eos: used(servers, flag, "true: never end before `max_tokens` (for benchmarks)", "false"),
  cache_prompt: used(
    ["llama-server"],
    flag,
    "false: nothing stored is read for this request, as with `reprise.read`, which takes precedence",
    "true",
  ),
  cache_salt: used(
    ["vLLM", "Reprise"],
    text(1024),
    "a text: only requests with the same one share what was read",
    "none",
  ),
  reprise: used(
    ["Reprise"],
    objectOf({ reuse: choiceOf("prefix", "anywhere"), read: flag, save: flag }),
    '`reuse`: `"prefix"` (`"anywhere"` is refused: this build reuses prefixes only); `read`, `save`: may this request read from the cache, and store in it?',
    '`"prefix"`, true, true',
  ),
  response_format: used(
    everyApi,
    objectOf({ type: v.literal("text", 'can only be "text": answers cannot be constrained') }),
    '`{"type": "text"}`; JSON and schemas are refused: answers cannot be constrained',
    "text",
  ),
} as const;
