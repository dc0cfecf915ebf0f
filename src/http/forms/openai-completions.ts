/** OpenAI's older form, which continues a text or tokens: `/v1/completions`, also without `/v1`, as llama-server has it. */
import type { ModelInfo } from "../../engine.ts";
import { completionFields } from "../fields/completion-fields.ts";
import { readerOf } from "../fields/field.ts";
import { toPrompt } from "../fields/tokens.ts";
import { openAiError } from "../openai-error.ts";
import type { AnswerForm, EndEvent, ParsedRequest, TextEvent } from "./form.ts";
import { type Choices, finite, type OpenAiOptions, OpenAiWriter, textOf } from "./openai-answer.ts";
import { toRequest } from "./openai-request.ts";

export const openAiCompletions: AnswerForm<OpenAiOptions> = {
  paths: ["/v1/completions", "/completions"],
  promptField: "prompt",
  parse: parseCompletion,
  writer: (head, options) => new OpenAiWriter(head, options, completionChoices()),
  error: openAiError,
};

const readCompletion = readerOf(completionFields);

/** The body of `/v1/completions`. @throws RepriseError BAD_REQUEST with the field. */
function parseCompletion(body: unknown, model: ModelInfo): ParsedRequest<OpenAiOptions> {
  const fields = readCompletion(body);
  return toRequest(fields, toPrompt(fields.prompt, model), fields.logprobs ?? undefined, model);
}

function completionChoices(): Choices {
  let offset = 0;
  const choice = (events: readonly TextEvent[], reason: EndEvent["reason"] | null) => {
    const logprobs = completionLogprobs(events, offset);
    offset += textOf(events).length;
    return { index: 0, text: textOf(events), logprobs, finish_reason: reason };
  };
  return {
    idPrefix: "cmpl-",
    object: "text_completion",
    chunkObject: "text_completion",
    opening: () => undefined,
    piece: (event) => choice([event], null),
    ending: (reason) => choice([], reason),
    whole: (events, reason) => choice(events, reason),
  };
}

function completionLogprobs(events: readonly TextEvent[], firstOffset: number): object | null {
  if (!events.some((event) => event.logprobs !== undefined)) return null;
  const tokens = events.flatMap((event) => event.logprobs ?? []);
  let offset = firstOffset;
  return {
    tokens: tokens.map((token) => token.text),
    token_logprobs: tokens.map((token) => finite(token.logprob)),
    // The chosen token is always among them, also when it is none of the likeliest.
    top_logprobs: tokens.map((token) =>
      Object.fromEntries([...token.top, token].map((other) => [other.text, finite(other.logprob)])),
    ),
    text_offset: tokens.map((token) => {
      const at = offset;
      offset += token.text.length;
      return at;
    }),
  };
}
