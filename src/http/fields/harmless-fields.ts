/** Fields that chats and completions share and that leave the answer as it is. */
import { type Api, type Fields, ignored } from "./field.ts";

const vllm = ["vLLM"] as const satisfies readonly Api[];
const llama = ["llama-server"] as const satisfies readonly Api[];

const bookkeeping = "bookkeeping of OpenAI's service";
const withBeams = "only counts with `use_beam_search`, which is refused";
const withGrammar = "only counts with a grammar, which is refused";
const withSampler = (name: string) => `only counts with \`${name}\`, which is refused`;
const withBudget = "only counts with `reasoning_budget_tokens`, which is refused";
const noShift = "the context is never shifted: an answer ends at its limit";

export const harmlessFields = {
  user: ignored(["OpenAI", "vLLM"], bookkeeping),
  length_penalty: ignored(vllm, withBeams),
  early_stopping: ignored(vllm, withBeams),
  spaces_between_special_tokens: ignored(vllm, withSampler("skip_special_tokens: false")),
  truncation_side: ignored(vllm, withSampler("truncate_prompt_tokens")),
  guided_decoding_backend: ignored(vllm, withGrammar),
  guided_whitespace_pattern: ignored(vllm, withGrammar),
  grammar_lazy: ignored(llama, withGrammar),
  grammar_triggers: ignored(llama, withGrammar),
  grammar_type: ignored(llama, withGrammar),
  xtc_threshold: ignored(llama, withSampler("xtc_probability")),
  dynatemp_exponent: ignored(llama, withSampler("dynatemp_range")),
  dry_base: ignored(llama, withSampler("dry_multiplier")),
  dry_allowed_length: ignored(llama, withSampler("dry_multiplier")),
  dry_penalty_last_n: ignored(llama, withSampler("dry_multiplier")),
  dry_sequence_breakers: ignored(llama, withSampler("dry_multiplier")),
  mirostat_tau: ignored(llama, withSampler("mirostat")),
  mirostat_eta: ignored(llama, withSampler("mirostat")),
  adaptive_decay: ignored(llama, withSampler("adaptive_target")),
  reasoning_budget_start_tag: ignored(llama, withBudget),
  reasoning_budget_end_tag: ignored(llama, withBudget),
  reasoning_budget_end_tags: ignored(llama, withBudget),
  reasoning_budget_message: ignored(llama, withBudget),
  n_keep: ignored(llama, noShift),
  n_discard: ignored(llama, noShift),
  n_cache_reuse: ignored(llama, "reuse stays exact: only prefixes are reused"),
  id_slot: ignored(llama, "every sequence gives the same answer"),
  backend_sampling: ignored(llama, "where tokens are chosen does not change which ones"),
  sse_ping_interval: ignored(llama, "comments are not part of an answer; they come every 10 s"),
  stream_interval: ignored(vllm, "how an answer is cut into chunks does not change it"),
  priority: ignored(vllm, "changes when an answer comes, not what it says"),
  request_id: ignored(vllm, "answers have their own ids; `x-request-id` is kept"),
  session_id: ignored(vllm, "what belongs together is found by its text"),
  return_token_offsets: ignored(vllm, "vLLM itself ignores it here"),
  return_mm_kwargs: ignored(vllm, "vLLM itself ignores it here"),
  routed_experts_prompt_start: ignored(vllm, "only counts where experts are reported, for which vLLM has a flag"),
} as const satisfies Fields;
