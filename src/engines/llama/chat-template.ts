/**
 * From a chat to the text that the model reads: the Jinja template of its GGUF file.
 */
import { Template } from "@huggingface/jinja";
import type { ChatPrompt } from "../../engine.ts";
import { RepriseError, describe } from "../../errors.ts";
import type { LoadedModel } from "./messages.ts";

export class ChatTemplate {
  readonly #template: Template | undefined;
  readonly #model: LoadedModel;

  /** @throws RepriseError MODEL_INVALID when the model's template cannot be parsed. */
  constructor(model: LoadedModel) {
    this.#model = model;
    try {
      this.#template = model.chatTemplate === undefined ? undefined : new Template(model.chatTemplate);
    } catch (error) {
      throw new RepriseError("MODEL_INVALID", `The model's chat template cannot be parsed: ${describe(error)}`, {
        cause: error,
      });
    }
  }

  /** @throws RepriseError BAD_REQUEST when there is no template, or when it refuses these messages. */
  render(chat: ChatPrompt): string {
    if (this.#template === undefined) {
      throw new RepriseError("BAD_REQUEST", "This model has no chat template; send a text prompt to /v1/completions", {
        field: "messages",
      });
    }
    try {
      return this.#template.render({
        add_generation_prompt: true,
        bos_token: this.#model.beginText,
        eos_token: this.#model.endText,
        messages: chat.messages,
        ...(chat.tools === undefined ? {} : { tools: chat.tools }),
        ...chat.templateArguments,
      });
    } catch (error) {
      throw new RepriseError("BAD_REQUEST", `The model's chat template refuses these messages: ${describe(error)}`, {
        cause: error,
        field: "messages",
      });
    }
  }
}
