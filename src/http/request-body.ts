/**
 * What a client may send, and what the engine gets of it. Bodies are parsed once, here: unknown fields are ignored, as
 * OpenAI-compatible servers do; a known field of a wrong type or range is refused with its name.
 *
 * Settings that would silently change the answer if they were ignored (`n`, `echo`, `logit_bias`, images, another
 * `response_format`) are refused as well.
 */
import * as v from "valibot";
import type { ChatMessage, ChatPrompt, GenerateRequest, ModelInfo, Sampling } from "../engine.ts";
import { RepriseError } from "../errors.ts";
import { shorten } from "./read-json.ts";

/** A request as the HTTP part understands it; the salt is added by whoever knows the tenant. */
export interface ParsedRequest {
  /** As sent; undefined = the default model. */
  readonly model: string | undefined;
  readonly stream: boolean;
  /** Send a last chunk with the usage. */
  readonly includeUsage: boolean;
  readonly cacheSalt: string | undefined;
  readonly read: boolean;
  readonly save: boolean;
  readonly generate: Omit<GenerateRequest, "cache">;
}

const maximumMessages = 4096;
const maximumStops = 16;
const maximumStopLength = 1024;
const maximumLogprobs = 20;

const flag = v.nullish(v.boolean());
const text = (length: number) => v.nullish(v.pipe(v.string(), v.maxLength(length)));
const number = (low: number, high: number) => v.nullish(v.pipe(v.number(), v.minValue(low), v.maxValue(high)));
const integer = (low: number, high: number) =>
  v.nullish(v.pipe(v.number(), v.integer(), v.minValue(low), v.maxValue(high)));
const choiceOf = <const T extends readonly string[]>(...options: T) => v.nullish(v.picklist(options));

const commonFields = {
  model: text(512),
  stream: flag,
  stream_options: v.nullish(v.object({ include_usage: flag })),
  max_tokens: integer(1, 2 ** 31 - 1),
  max_completion_tokens: integer(1, 2 ** 31 - 1),
  temperature: number(0, 2),
  top_p: number(0, 1),
  top_k: integer(-1, 2 ** 31 - 1),
  min_p: number(0, 1),
  repeat_penalty: number(0.01, 10),
  repetition_penalty: number(0.01, 10),
  frequency_penalty: number(-2, 2),
  presence_penalty: number(-2, 2),
  seed: integer(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  stop: v.nullish(v.unknown()),
  n: v.nullish(v.literal(1, "this server gives one answer per request")),
  logit_bias: v.nullish(v.unknown()),
  ignore_eos: flag,
  user: text(1024),
  cache_salt: text(1024),
  reprise: v.nullish(v.object({ reuse: choiceOf("prefix", "anywhere"), read: flag, save: flag })),
};

const chatSchema = v.object({
  ...commonFields,
  messages: v.pipe(
    v.array(v.looseObject({ role: v.pipe(v.string(), v.minLength(1), v.maxLength(64)) })),
    v.minLength(1),
    v.maxLength(maximumMessages),
  ),
  tools: v.nullish(v.pipe(v.array(v.looseObject({})), v.maxLength(1024))),
  tool_choice: v.nullish(v.picklist(["none", "auto"], 'only "none" and "auto" are supported')),
  response_format: v.nullish(v.object({ type: v.literal("text", 'only the type "text" is supported') })),
  logprobs: flag,
  top_logprobs: integer(0, maximumLogprobs),
  chat_template_kwargs: v.nullish(v.record(v.string(), v.unknown())),
});

const completionSchema = v.object({
  ...commonFields,
  prompt: v.unknown(),
  echo: v.nullish(v.literal(false, "echoing the prompt is not supported")),
  best_of: v.nullish(v.literal(1, "this server gives one answer per request")),
  suffix: v.nullish(v.literal("", "filling in the middle is not supported")),
  logprobs: integer(0, maximumLogprobs),
});

const tokenizeSchema = v.object({
  content: v.nullish(v.string()),
  prompt: v.nullish(v.string()),
  add_special: flag,
  parse_special: flag,
});

const pinSchema = v.object({
  prompt: v.unknown(),
  seconds: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(3600)),
  cache_salt: text(1024),
});

const detokenizeSchema = v.object({ tokens: v.unknown() });

/** The body of `/v1/chat/completions`. @throws RepriseError BAD_REQUEST with the field. */
export function parseChat(body: unknown, model: ModelInfo): ParsedRequest {
  const fields = parse(chatSchema, body);
  const prompt: ChatPrompt = {
    messages: fields.messages.map(toMessage),
    ...(fields.tools && fields.tools.length > 0 && { tools: fields.tools }),
    ...(fields.chat_template_kwargs && { templateArguments: fields.chat_template_kwargs }),
  };
  const top = fields.top_logprobs ?? undefined;
  if (top !== undefined && fields.logprobs !== true) refuse("top_logprobs", "needs logprobs: true");
  return toRequest(fields, prompt, fields.logprobs === true ? (top ?? 0) : undefined, model);
}

/** The body of `/v1/completions`. @throws RepriseError BAD_REQUEST with the field. */
export function parseCompletion(body: unknown, model: ModelInfo): ParsedRequest {
  const fields = parse(completionSchema, body);
  return toRequest(fields, toPrompt(fields.prompt, model), fields.logprobs ?? undefined, model);
}

/** The body of `/tokenize`, with llama-server's defaults. @throws RepriseError BAD_REQUEST with the field. */
export function parseTokenize(body: unknown): { text: string; begin: boolean; special: boolean } {
  const fields = parse(tokenizeSchema, body);
  const text = fields.content ?? fields.prompt ?? refuse("content", "is missing: send the text as content");
  return { text, begin: fields.add_special ?? false, special: fields.parse_special ?? true };
}

/** The body of `/cache/pin`. @throws RepriseError BAD_REQUEST with the field. */
export function parsePin(
  body: unknown,
  model: ModelInfo,
): { prompt: string | Uint32Array; seconds: number; cacheSalt: string | undefined } {
  const { prompt, seconds, cache_salt: cacheSalt } = parse(pinSchema, body);
  return { prompt: toPrompt(prompt, model), seconds, cacheSalt: cacheSalt ?? undefined };
}

/** The body of `/detokenize`. @throws RepriseError BAD_REQUEST with the field. */
export function parseDetokenize(body: unknown, model: ModelInfo): Uint32Array {
  const { tokens } = parse(detokenizeSchema, body);
  if (!Array.isArray(tokens)) refuse("tokens", "must be an array of token ids");
  return toTokens(tokens, "tokens", model);
}

type CommonFields = v.InferOutput<v.ObjectSchema<typeof commonFields, undefined>>;

function toRequest(
  fields: CommonFields,
  prompt: GenerateRequest["prompt"],
  logprobs: number | undefined,
  model: ModelInfo,
): ParsedRequest {
  if (fields.reprise?.reuse === "anywhere") {
    refuse("reprise.reuse", 'cannot be "anywhere": this build reuses prefixes only');
  }
  if (isFilled(fields.logit_bias)) refuse("logit_bias", "is not supported");
  return {
    model: fields.model ?? undefined,
    stream: fields.stream ?? false,
    includeUsage: fields.stream_options?.include_usage ?? false,
    cacheSalt: fields.cache_salt ?? undefined,
    read: fields.reprise?.read ?? true,
    save: fields.reprise?.save ?? true,
    generate: {
      prompt,
      sampling: toSampling(fields),
      maxTokens: fields.max_completion_tokens ?? fields.max_tokens ?? model.contextTokens,
      stop: toStops(fields.stop),
      ignoreEnd: fields.ignore_eos ?? false,
      ...(logprobs !== undefined && { logprobs }),
    },
  };
}

function toSampling(fields: CommonFields): Sampling {
  const seed = fields.seed ?? undefined;
  return {
    temperature: fields.temperature ?? 1,
    topK: Math.max(0, fields.top_k ?? 0), // vLLM's clients send -1 for "off"
    topP: fields.top_p ?? 1,
    minP: fields.min_p ?? 0,
    repeatPenalty: fields.repeat_penalty ?? fields.repetition_penalty ?? 1,
    frequencyPenalty: fields.frequency_penalty ?? 0,
    presencePenalty: fields.presence_penalty ?? 0,
    // OpenAI's seeds have 64 bits, the sampler's 32.
    ...(seed !== undefined && { seed: Number(BigInt.asUintN(32, BigInt(seed))) }),
  };
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

/** Content as one string, whatever form it came in; all other fields go to the template as they are. */
function toMessage(message: { readonly role: string; readonly [field: string]: unknown }, index: number): ChatMessage {
  const at = `messages[${index}].content`;
  // Templates know "system"; OpenAI's newer clients call the same role "developer".
  const role = message.role === "developer" ? "system" : message.role;
  return { ...message, role, content: toText(message["content"], at) };
}

function toText(content: unknown, at: string): string {
  if (typeof content === "string") return content;
  if (content === undefined || content === null) return ""; // an assistant's message that only calls tools
  if (!Array.isArray(content)) return refuse(at, "must be a string or an array of text parts");
  return content
    .map((part: unknown, index) => {
      if (typeof part === "object" && part !== null && "text" in part && typeof part.text === "string") {
        const type = "type" in part ? part.type : "text";
        if (type === "text" || type === "input_text") return part.text;
      }
      return refuse(`${at}[${index}]`, 'must be a text part: {"type": "text", "text": …}; this model reads only text');
    })
    .join("\n");
}

/** A prompt is a text, token ids, or an array with one of these. */
function toPrompt(prompt: unknown, model: ModelInfo): string | Uint32Array {
  if (typeof prompt === "string") return prompt;
  if (!Array.isArray(prompt)) return refuse("prompt", "must be a string or an array of token ids");
  const [first] = prompt as unknown[];
  if (prompt.length === 1 && typeof first === "string") return first;
  if (prompt.length === 1 && Array.isArray(first)) return toTokens(first, "prompt[0]", model);
  if (typeof first === "string" || Array.isArray(first)) return refuse("prompt", "has several prompts; send one each");
  return toTokens(prompt, "prompt", model);
}

function toTokens(ids: readonly unknown[], field: string, model: ModelInfo): Uint32Array {
  if (ids.length === 0) refuse(field, "must not be empty");
  const tokens = new Uint32Array(ids.length);
  for (const [index, id] of ids.entries()) {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= model.vocabularySize) {
      refuse(`${field}[${index}]`, `must be a token id from 0 to ${model.vocabularySize - 1}`);
    }
    tokens[index] = id;
  }
  return tokens;
}

function parse<T extends v.GenericSchema>(schema: T, body: unknown): v.InferOutput<T> {
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new RepriseError("BAD_REQUEST", "The body must be a JSON object.");
  }
  const parsed = v.safeParse(schema, body, { abortEarly: true });
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  return refuse(pathOf(issue), `cannot be used: ${shorten(issue.message, 300)}`);
}

function pathOf(issue: v.BaseIssue<unknown>): string {
  return (issue.path ?? [])
    .map((item) => (typeof item.key === "number" ? `[${item.key}]` : `.${shorten(String(item.key), 64)}`))
    .join("")
    .slice(1);
}

function isFilled(value: unknown): boolean {
  return value !== undefined && value !== null && !(typeof value === "object" && Object.keys(value).length === 0);
}

function refuse(field: string, problem: string): never {
  throw new RepriseError("BAD_REQUEST", `${field} ${problem}`, { field });
}
