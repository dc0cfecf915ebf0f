/** OpenAI's chats: `/v1/chat/completions`, also without `/v1`, as llama-server has them. */
import type { ChatPrompt, ModelInfo, TokenLogprob } from "../../engine.ts";
import { effortArguments } from "../../chat/reasoning.ts";
import { chatFields } from "../fields/chat-fields.ts";
import { readerOf, refuse, type Values } from "../fields/field.ts";
import { openAiError } from "../openai-error.ts";
import type { AnswerForm, EndEvent, ParsedRequest, TextEvent } from "./form.ts";
import { type Choices, finite, type OpenAiOptions, OpenAiWriter, textOf } from "./openai-answer.ts";
import { toMessage, toTools } from "./openai-messages.ts";
import { toRequest } from "./openai-request.ts";

export const openAiChat: AnswerForm<OpenAiOptions> = {
  paths: ["/v1/chat/completions", "/chat/completions"],
  promptField: "messages",
  parse: parseChat,
  writer: (head, options) => new OpenAiWriter(head, options, chatChoices()),
  error: openAiError,
};

const readChat = readerOf(chatFields);

/** The body of `/v1/chat/completions`. @throws RepriseError BAD_REQUEST with the field. */
function parseChat(body: unknown, model: ModelInfo): ParsedRequest<OpenAiOptions> {
  const fields = readChat(body);
  const tools = toTools(fields.tools ?? [], fields.functions ?? []);
  const templateArguments = toTemplateArguments(fields);
  const prompt: ChatPrompt = {
    messages: fields.messages.map(toMessage),
    ...(tools.length > 0 && { tools }),
    ...(templateArguments && { templateArguments }),
    ...endingOf(fields),
  };
  const top = fields.top_logprobs ?? 0;
  if (top > 0 && fields.logprobs !== true) refuse("top_logprobs", "needs logprobs: true");
  return toRequest(fields, prompt, fields.logprobs === true ? top : undefined, model);
}

/** What follows the last message. Without a word on it an answer does, also after a message of the assistant. */
function endingOf(fields: Values<typeof chatFields>): Pick<ChatPrompt, "ending"> {
  if (fields.continue_final_message === true) {
    if (fields.add_generation_prompt !== true) return { ending: "continued" };
    refuse("continue_final_message", "cannot be true together with add_generation_prompt");
  }
  return fields.add_generation_prompt === false ? { ending: "nothing" } : {};
}

/** What the template gets beside messages and tools. */
function toTemplateArguments(fields: Values<typeof chatFields>): Record<string, unknown> | undefined {
  const effort = fields.reasoning_effort ?? fields.reasoning?.effort ?? undefined;
  if (effort === undefined) return fields.chat_template_kwargs ?? undefined;
  return { ...effortArguments(effort), ...fields.chat_template_kwargs };
}

function chatChoices(): Choices {
  const chunk = (delta: object, logprobs: object | null, reason: EndEvent["reason"] | null) => ({
    index: 0,
    delta,
    logprobs,
    finish_reason: reason,
  });
  return {
    idPrefix: "chatcmpl-",
    object: "chat.completion",
    chunkObject: "chat.completion.chunk",
    opening: () => chunk({ role: "assistant", content: "" }, null, null),
    piece: (event) => chunk({ content: event.text }, chatLogprobs([event]), null),
    ending: (reason) => chunk({}, null, reason),
    whole: (events, reason) => ({
      index: 0,
      message: { role: "assistant", content: textOf(events), refusal: null },
      logprobs: chatLogprobs(events),
      finish_reason: reason,
    }),
  };
}

function chatLogprobs(events: readonly TextEvent[]): object | null {
  const tokens = events.flatMap((event) => event.logprobs ?? []);
  if (!events.some((event) => event.logprobs !== undefined)) return null;
  const entry = (token: TokenLogprob) => ({
    token: token.text,
    logprob: finite(token.logprob),
    bytes: [...token.bytes],
  });
  return {
    content: tokens.map((token) => ({ ...entry(token), top_logprobs: token.top.map((other) => entry(other)) })),
    refusal: null,
  };
}
