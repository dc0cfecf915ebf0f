/**
 * A tokenizer process: turns chats and texts into tokens, and tokens into text. Started by tokenizer-place.ts.
 *
 * It loads the vocabulary and no weights. Here, and not in the engine process, because what a client sends decides how long
 * these calls take and how deep they recurse: a text can end this process, and nothing but its own request ends with it.
 */
import type { ChatPrompt } from "../../../engine.ts";
import { RepriseError } from "../../../errors.ts";
import { useDeepStack } from "../../../ffi/llama.ts";
import { silentLog } from "../../../log.ts";
import { ChatTemplate } from "../../../chat/chat-template.ts";
import { textContent } from "../../../chat/content.ts";
import { KnownTokens } from "../model/known-tokens.ts";
import { openLibrary } from "../model/library.ts";
import { LoadableModel } from "../model/model-files.ts";
import { loadVocabulary } from "../model/model.ts";
import { failureOf, openServerChannel } from "../server-channel.ts";
import type { FromTokenizer, TextResult, TextTask, TokenizerStart, ToTokenizer } from "../tokenizer-messages.ts";
import type { Vocabulary } from "../model/vocabulary.ts";

const server = openServerChannel<ToTokenizer, FromTokenizer>();

class TokenizerProcess {
  readonly #vocabulary: Vocabulary;
  readonly #template: ChatTemplate;
  readonly #known = new KnownTokens();

  constructor(options: TokenizerStart) {
    const library = openLibrary({ gpu: options.gpu, folder: options.llamaLib, backends: false, log: silentLog });
    const { vocabulary, metadata } = loadVocabulary({ library, file: new LoadableModel(options.model) });
    this.#vocabulary = vocabulary;
    this.#template = new ChatTemplate({
      chatTemplate: options.chatTemplate ?? metadata.get("tokenizer.chat_template"),
      beginText: vocabulary.specialText("begin"),
      endText: vocabulary.specialText("end"),
    });
    const { fault: templateFault } = this.#template;
    this.#warmUp();
    server.send({ kind: "ready", longestPieceBytes: vocabulary.longestPieceBytes(), templateFault });
  }

  /** A first text would wait for what is made and compiled once, as long as its own tokens take; here it is beside the model's load. */
  #warmUp(): void {
    const content = "A text as long as those that people wait for. ".repeat(200);
    this.#vocabulary.tokenizePrompt({ text: content, typed: [[0, content.length]] });
    if (this.#template.fault !== undefined) return;
    try {
      this.#prompt({ messages: [{ role: "user", content: textContent(content) }] }, Infinity);
    } catch (error) {
      if (!(error instanceof RepriseError)) throw error; // a template may refuse this chat and take others
    }
  }

  work(task: TextTask, salt: string | undefined): void {
    server.send({ kind: "begun" });
    try {
      server.send({ kind: "done", result: this.#result(task, salt) });
    } catch (error) {
      if (!(error instanceof RepriseError)) throw error;
      server.send({ kind: "failed", ...failureOf(error) });
    }
  }

  #result(task: TextTask, salt: string | undefined): TextResult {
    if (task.kind === "prompt")
      return this.#prompt(task.prompt, task.mostBytes, salt === undefined ? undefined : { tokens: this.#known, salt });
    if (task.kind === "tokenize") return this.#vocabulary.tokenize(task.text, task);
    if (task.kind === "detokenize") return this.#vocabulary.detokenize(task.tokens);
    return this.#vocabulary.namedPieces(task.tokens);
  }

  #prompt(
    prompt: ChatPrompt | string,
    mostBytes: number,
    known?: { readonly tokens: KnownTokens; readonly salt: string },
  ): Uint32Array {
    // A bare prompt is its author's own template: what it says of special tokens counts.
    const text = typeof prompt === "string" ? { text: prompt, typed: [] } : this.#template.render(prompt);
    const bytes = Buffer.byteLength(text.text);
    if (bytes <= mostBytes) return this.#vocabulary.tokenizePrompt(text, known);
    throw new RepriseError(
      "PROMPT_TOO_LONG",
      `The prompt has ${bytes} bytes of text; the context holds ${mostBytes} at most, whatever they say`,
      { field: typeof prompt === "string" ? "prompt" : "messages" },
    );
  }
}

let tokenizer: TokenizerProcess | undefined;

useDeepStack(); // some vocabularies' regular expressions recurse with the length of a text
server.listen((message) => {
  switch (message.kind) {
    case "ping":
      server.send({ kind: "pong" });
      return;
    case "work":
      tokenizer?.work(message.task, message.salt);
      return;
    case "start":
      try {
        tokenizer = new TokenizerProcess(message.options);
      } catch (error) {
        server.refuse(error);
      }
  }
});
