/**
 * From a chat to the text that the model reads: the Jinja template of its GGUF file, or one that was given in its place.
 * What the request says is typed, but for the roles (roles.ts).
 */
import type { ChatMessage, ChatPrompt } from "../engine.ts";
import { RepriseError, describe } from "../errors.ts";
import { endWithoutSpace, strip } from "../jinja/characters.ts";
import { typedValue } from "../jinja/input.ts";
import { Template } from "../jinja/template.ts";
import { TemplateError } from "../jinja/template-error.ts";
import { Text } from "../jinja/text.ts";
import { Dict, List, type Value } from "../jinja/values.ts";
import { contentText, textContent } from "./content.ts";
import type { PromptText } from "./prompt-text.ts";
import { withReasoning } from "./reasoning.ts";
import { roleValue } from "./roles.ts";
import { toolCallsValue } from "./tool-calls.ts";

/** A template's work: so much for any chat, and more for each message and character of it. */
const baseSteps = 4_000_000;
const stepsPerMessage = 4_000;
const stepsPerCharacter = 2;
const longestText = 64 * 2 ** 20;

/** Set by the server, so that a request's `chat_template_kwargs` cannot say otherwise. */
const fixed: readonly string[] = ["messages", "tools", "add_generation_prompt", "continue_final_message"];

/** Stands behind a message that is to be continued; what the template puts behind it is cut off. No prompt holds it. */
const continuationMark = "CONTINUED-HERE-d1c7f0b9 ";

/** What a template is made of and may name. */
export interface TemplateParts {
  /** The Jinja template, undefined when there is none. */
  readonly chatTemplate: string | undefined;
  readonly beginText: string;
  readonly endText: string;
}

export class ChatTemplate {
  readonly #template: Template | undefined;
  readonly #model: TemplateParts;
  readonly #knowsDeveloper: boolean;
  readonly #now: () => Date;

  /**
   * What is wrong with the template, so that nothing can be rendered with it. Models come with templates of any kind; those
   * that this renderer cannot read still continue texts.
   */
  readonly fault: string | undefined;

  constructor(model: TemplateParts, { now = () => new Date() }: { now?: () => Date } = {}) {
    const source = model.chatTemplate;
    this.#model = model;
    this.#now = now;
    this.#knowsDeveloper = source?.includes("developer") ?? false;
    try {
      this.#template = source === undefined ? undefined : Template.parse(source);
    } catch (error) {
      this.fault = `The model's chat template cannot be parsed: ${explain(error)}`;
    }
  }

  /** @throws RepriseError BAD_REQUEST when there is no template that can be used, or when it refuses these messages. */
  render(chat: ChatPrompt): PromptText {
    if (this.#template === undefined) {
      throw new RepriseError(
        "BAD_REQUEST",
        `${this.fault ?? "This model has no chat template"}; start the server with --chat-template FILE, or send a text prompt to /v1/completions`,
        { field: "messages" },
      );
    }
    for (const name of fixed) {
      if (chat.templateArguments?.[name] === undefined) continue;
      throw new RepriseError("BAD_REQUEST", `${name} is a field of its own, not one of chat_template_kwargs`, {
        field: `chat_template_kwargs.${name}`,
      });
    }
    const { messages, ending = "answer" } = chat;
    const open = ending === "continued" ? withMark(messages) : messages;
    const values = new List(open.map((message, index) => this.#messageValue(message, index)));
    const { tools = [], templateArguments = {} } = chat;
    const length = messages.reduce(
      (sum, { content }) => sum + contentText(content).length,
      JSON.stringify([tools, templateArguments]).length,
    );
    try {
      const text = this.#template.render(this.#variables(chat, values), {
        limits: {
          steps: baseSteps + stepsPerMessage * messages.length + stepsPerCharacter * length,
          textLength: longestText,
        },
        now: this.#now,
      });
      return toPrompt(ending === "continued" ? upToMark(text, contentText(messages.at(-1)?.content ?? [])) : text);
    } catch (error) {
      if (error instanceof RepriseError) throw error;
      throw new RepriseError("BAD_REQUEST", `The model's chat template refuses these messages: ${explain(error)}`, {
        cause: error,
        field: "messages",
      });
    }
  }

  /** As transformers hands them over; what is not there is None where it says so. */
  #variables(chat: ChatPrompt, messages: Value): Map<string, Value> {
    return new Map<string, Value>([
      ["bos_token", new Text(this.#model.beginText)],
      ["eos_token", new Text(this.#model.endText)],
      ["documents", null],
      ...Object.entries(chat.templateArguments ?? {}).map(([name, value]) => [name, typedValue(value)] as const),
      ["messages", messages],
      ["tools", chat.tools === undefined ? null : typedValue(chat.tools)],
      ["add_generation_prompt", (chat.ending ?? "answer") === "answer"],
    ]);
  }

  #messageValue(message: ChatMessage, index: number): Value {
    return Dict.of(
      fieldsOf(message).flatMap(([name, field]): [Value, Value][] => {
        const value = this.#fieldValue(message, name, field, index);
        return value === undefined ? [] : [[Text.typed(name), value]];
      }),
    );
  }

  #fieldValue({ role, content }: ChatMessage, name: string, value: unknown, index: number): Value | undefined {
    if (name === "role") return roleValue(role, { knowsDeveloper: this.#knowsDeveloper });
    if (name === "content") return Text.typed(contentText(content));
    if (name === "tool_calls" && role === "assistant") return toolCallsValue(value, `messages[${index}].tool_calls`);
    return typedValue(value);
  }
}

/** As transformers hands them over: nothing that is null, and reasoning under both names that templates know. */
function fieldsOf(message: ChatMessage): readonly (readonly [string, unknown])[] {
  return withReasoning(Object.entries(message).filter(([, value]) => value !== null));
}

function withMark(messages: readonly ChatMessage[]): ChatMessage[] {
  const last = messages.at(-1);
  if (last === undefined) return [];
  return [...messages.slice(0, -1), { ...last, content: textContent(contentText(last.content) + continuationMark) }];
}

/** As transformers cuts: where the template trims messages, the trimmed message is continued. */
function upToMark(text: Text, content: string): Text {
  const at = text.text.lastIndexOf(continuationMark.trim());
  if (at === -1 || !text.text.includes(strip(content))) {
    throw new RepriseError(
      "BAD_REQUEST",
      "The model's chat template does not show the whole last message: it cannot be continued",
      {
        field: "continue_final_message",
      },
    );
  }
  if (text.text.startsWith(continuationMark, at)) return text.cut(0, at);
  return text.cut(0, endWithoutSpace(text.text.slice(0, at)));
}

function toPrompt({ text, typed }: Text): PromptText {
  return {
    text,
    typed: Array.from({ length: typed.length / 2 }, (_, span) => [typed[2 * span]!, typed[2 * span + 1]!] as const),
  };
}

/** What a template says of itself, with the line. */
export function explain(error: unknown): string {
  if (error instanceof TemplateError && error.line !== undefined) return `${error.message} (line ${error.line})`;
  return describe(error);
}
