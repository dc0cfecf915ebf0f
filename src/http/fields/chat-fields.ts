/** The fields of `/v1/chat/completions`. */
import * as v from "valibot";
import { reasoningEfforts } from "../../chat/reasoning.ts";
import { answerFields } from "./answer-fields.ts";
import { type Api, type Fields, ignored, refused, used } from "./field.ts";
import { harmlessFields } from "./harmless-fields.ts";
import { anyObject, choiceOf, flag, integer, maximumLogprobs, objectOf, text } from "./schemas.ts";
import { unsupportedFields } from "./unsupported-fields.ts";

export const maximumMessages = 4096;
const maximumTools = 1024;

const openAi = ["OpenAI"] as const satisfies readonly Api[];
const vllm = ["vLLM"] as const satisfies readonly Api[];
const llama = ["llama-server"] as const satisfies readonly Api[];
const everyApi = ["OpenAI", "vLLM", "llama-server", "Ollama"] as const satisfies readonly Api[];

const bookkeeping = "bookkeeping of OpenAI's service";
const onlyText = "this server reads and writes only text";
const llamaInside = "internal to llama-server; clients do not send it";

const efforts = choiceOf(...reasoningEfforts);
const listOfTools = v.nullish(v.pipe(v.array(anyObject), v.maxLength(maximumTools)));

export const chatFields = {
  ...answerFields,
  messages: used(
    everyApi,
    v.pipe(v.array(anyObject), v.minLength(1), v.maxLength(maximumMessages)),
    `1 to ${maximumMessages.toLocaleString("en")}; see [messages](#messages)`,
    "must be given",
  ),
  tools: used(everyApi, listOfTools, "functions, passed to the chat template; see [messages](#messages)", "none"),
  tool_choice: used(
    ["OpenAI", "vLLM", "llama-server"],
    v.nullish(v.picklist(["none", "auto"], 'can only be "none" or "auto": no call can be forced')),
    '`"none"`, `"auto"`; a choice that forces a call is refused',
    "auto",
  ),
  functions: used(["OpenAI, old"], listOfTools, "the old form of `tools`; not both", "none"),
  function_call: used(
    ["OpenAI, old"],
    v.nullish(v.picklist(["none", "auto"], 'can only be "none" or "auto": no call can be forced')),
    "the old form of `tool_choice`",
    "auto",
  ),
  logprobs: used(["OpenAI", "vLLM", "llama-server"], flag, "true: each token's log-probability", "false"),
  top_logprobs: used(
    ["OpenAI", "vLLM", "llama-server"],
    integer(0, maximumLogprobs),
    `0 to ${maximumLogprobs} alternatives to each token; needs \`logprobs\``,
    "0",
  ),
  chat_template_kwargs: used(["vLLM", "llama-server"], v.nullish(anyObject), "passed to the chat template", "none"),
  add_generation_prompt: used(
    ["vLLM", "llama-server"],
    flag,
    "false: the assistant's turn is not opened after the last message",
    "true",
  ),
  continue_final_message: used(
    ["vLLM", "llama-server"],
    flag,
    "true: the last message is left open, and the answer continues it; see [messages](#messages)",
    "false",
  ),
  reasoning_effort: used(
    ["OpenAI", "vLLM", "Ollama"],
    efforts,
    "passed to the chat template as `reasoning_effort`, and as `enable_thinking`: false for `none`, otherwise true; `chat_template_kwargs` take precedence",
    "none is passed",
  ),
  reasoning: used(["Ollama"], objectOf({ effort: efforts }), "`effort`: the same as `reasoning_effort`"),

  ...unsupportedFields,
  modalities: refused(openAi, [["text"]], onlyText),
  audio: refused(openAi, [], onlyText),
  web_search_options: refused(openAi, [], "nothing is searched"),
  verbosity: refused(openAi, ["medium"], "models here have no such setting"),
  include_reasoning: refused(vllm, [true], "thinking is not separated from the answer"),
  parse_tool_calls: refused(llama, [false], "what the model writes comes as text"),
  chat_format: refused(llama, [], llamaInside),
  chat_parser: refused(llama, [""], llamaInside),
  generation_prompt: refused(llama, [""], llamaInside),
  chat_template: refused(vllm, [], "the template is the server's"),
  documents: refused(vllm, [[]], "pass them to the template in chat_template_kwargs"),
  add_special_tokens: refused(vllm, [false], "the template says which special tokens there are"),
  echo: refused(["vLLM", "llama-server"], [false], "answers do not repeat the prompt"),
  return_prompt_text: refused(vllm, [false], "answers do not repeat the prompt"),

  ...harmlessFields,
  store: ignored(openAi, bookkeeping),
  metadata: ignored(openAi, bookkeeping),
  service_tier: ignored(openAi, bookkeeping),
  safety_identifier: ignored(openAi, bookkeeping),
  prompt_cache_key: ignored(openAi, "every prefix is found by its text"),
  prompt_cache_retention: ignored(openAi, "what is stored is dropped when its room is needed"),
  prediction: ignored(openAi, "makes OpenAI's answers faster, not different"),
  parallel_tool_calls: ignored(["OpenAI", "vLLM", "llama-server"], "tool calls come as text"),
  media_io_kwargs: ignored(vllm, "only counts with images and sound, which are refused"),
  mm_processor_kwargs: ignored(vllm, "only counts with images and sound, which are refused"),
} as const satisfies Fields;

/** Fields of a tool, and of its function. */
export const toolFields = {
  type: used(
    ["OpenAI", "vLLM", "llama-server"],
    text(64),
    '`"function"`; others are refused: they need a service behind them',
  ),
  defer_loading: refused(vllm, [false], "the template gets all tools"),
} as const satisfies Fields;

export const toolFunctionFields = {
  strict: refused(["OpenAI", "vLLM"], [false], "arguments cannot be constrained to their schema"),
  defer_loading: refused(vllm, [false], "the template gets all tools"),
} as const satisfies Fields;

/** Fields of a message; see forms/openai-messages.ts for how content becomes blocks. */
export const messageFields = {
  role: used(
    everyApi,
    v.unknown(),
    "`system`, `developer` (read as `system`), `user`, `assistant`, `tool`, `function`, `ipython`",
  ),
  content: used(
    everyApi,
    v.unknown(),
    'a string, or parts: `{"type": "text", "text": …}`, for the assistant also `{"type": "refusal", "refusal": …}`. Only an assistant\'s message with a refusal or tool calls may have none. Images, sound and files are refused',
  ),
  refusal: used(openAi, v.unknown(), "of the assistant: its text when there is no content"),
  tool_calls: used(everyApi, v.unknown(), "passed to the chat template"),
  tool_call_id: used(everyApi, v.unknown(), "passed to the chat template"),
  function_call: used(["OpenAI, old"], v.unknown(), "passed to the chat template"),
  name: used(everyApi, v.unknown(), "passed to the chat template, as all other fields are"),
  audio: refused(openAi, [], onlyText),
} as const satisfies Fields;
