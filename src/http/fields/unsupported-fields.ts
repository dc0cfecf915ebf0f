/** Fields that chats and completions share and that would change the answer: refused, unless they ask for nothing. */
import { type Api, type Body, type Fields, refused } from "./field.ts";

const vllm = ["vLLM"] as const satisfies readonly Api[];
const llama = ["llama-server"] as const satisfies readonly Api[];

const oneAnswer = "this server gives one answer per request";
const constrained = "answers cannot be constrained to a form";
const sampler = "there is no such sampler here";
const inAnswer = "answers have no place for it";
const images = "this server reads only text";

const negative = { words: "a negative number", holds: (value: unknown) => typeof value === "number" && value < 0 };
const aboveOne = { words: "a number above 1", holds: (value: unknown) => typeof value === "number" && value > 1 };

/** llama-server's own orders, of this year and of those before: other samplers in them are off, each by a field of its own. */
const usualSamplers = [
  ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"],
  ["dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"],
] as const;

/** What only says how penalties count asks for nothing where there is none. */
const withoutPenalty = {
  words: "any value where no penalty is asked for",
  holds: (_: unknown, body: Body) =>
    penaltiesOff.every(([name, off]) => body[name] === undefined || body[name] === null || body[name] === off),
};
const penaltiesOff = [
  ["repeat_penalty", 1],
  ["repetition_penalty", 1],
  ["frequency_penalty", 0],
  ["presence_penalty", 0],
] as const;

export const unsupportedFields = {
  // Several answers
  n: refused(["OpenAI", "vLLM", "llama-server"], [1], oneAnswer),
  best_of: refused(["OpenAI, old", "vLLM"], [1], oneAnswer),
  n_cmpl: refused(llama, [1], oneAnswer),
  use_beam_search: refused(vllm, [false], oneAnswer),

  // Constrained answers
  grammar: refused(llama, [""], constrained),
  json_schema: refused(llama, [], constrained),
  structured_outputs: refused(vllm, [{}], constrained),
  guided_json: refused(vllm, [], constrained),
  guided_regex: refused(vllm, [""], constrained),
  guided_choice: refused(vllm, [[]], constrained),
  guided_grammar: refused(vllm, [""], constrained),
  structural_tag: refused(vllm, [""], constrained),
  allowed_token_ids: refused(vllm, [], constrained),
  bad_words: refused(vllm, [[]], constrained),
  n_indent: refused(llama, [0], constrained),

  // Other ways of choosing tokens
  samplers: refused(llama, usualSamplers, "the order of samplers is fixed"),
  typical_p: refused(llama, [1], sampler, aboveOne),
  typ_p: refused(llama, [1], sampler, aboveOne),
  tfs_z: refused(llama, [1], sampler, aboveOne),
  top_n_sigma: refused(llama, [0], sampler, negative),
  xtc_probability: refused(llama, [0], sampler),
  dynatemp_range: refused(llama, [0], sampler),
  dry_multiplier: refused(llama, [0], sampler),
  mirostat: refused(llama, [0], sampler),
  adaptive_target: refused(llama, [], sampler, negative),
  min_keep: refused(llama, [0], sampler),
  repeat_last_n: refused(llama, [64], "penalties look back 64 tokens, or over the whole answer", withoutPenalty),
  penalize_nl: refused(llama, [true], "line breaks are penalised like all other tokens", withoutPenalty),
  watermarking: refused(vllm, [false], sampler),
  logits_processors: refused(vllm, [[]], sampler),
  repetition_detection: refused(vllm, [], "answers are not ended for repeating themselves"),
  t_max_predict_ms: refused(llama, [0], "answers are not ended by the clock", negative),
  t_max_prompt_ms: refused(llama, [0], "answers are not ended by the clock", negative),

  // Thinking
  thinking_token_budget: refused(vllm, [-1], "thinking is not separated from the answer"),
  reasoning_budget_tokens: refused(llama, [-1], "thinking is not separated from the answer"),
  reasoning_format: refused(llama, ["none", "auto"], "thinking is not separated from the answer"),
  reasoning_control: refused(llama, [false], "thinking is not separated from the answer"),

  // The prompt
  truncate_prompt_tokens: refused(vllm, [], "prompts are never cut; shorten the prompt"),
  lora: refused(llama, [[]], "adapters are not loaded"),

  // What an answer should say besides
  include_stop_str_in_output: refused(vllm, [false], "an answer ends before its stop text"),
  skip_special_tokens: refused(vllm, [true], "special tokens are never part of an answer"),
  preserved_tokens: refused(llama, [[]], "special tokens are never part of an answer"),
  prompt_logprobs: refused(vllm, [], inAnswer),
  logprob_token_ids: refused(vllm, [[]], inAnswer),
  n_probs: refused(llama, [0], "ask for logprobs"),
  post_sampling_probs: refused(llama, [false], inAnswer),
  return_tokens_as_token_ids: refused(vllm, [false], inAnswer),
  return_token_ids: refused(vllm, [false], inAnswer),
  return_tokens: refused(llama, [false], inAnswer),
  return_progress: refused(llama, [false], inAnswer),
  timings_per_token: refused(llama, [false], inAnswer),
  response_fields: refused(llama, [[]], inAnswer),
  verbose: refused(llama, [false], inAnswer),
  kv_transfer_params: refused(vllm, [{}], 'no KV is handed over by name; "reprise" says what may be reused'),
  ec_transfer_params: refused(vllm, [{}], images),
  vllm_xargs: refused(vllm, [{}], "there are no extensions"),
  _debug_render_only: refused(["Ollama"], [false], inAnswer),
} as const satisfies Fields;
