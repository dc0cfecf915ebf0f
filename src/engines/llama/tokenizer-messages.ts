/**
 * What the server and a tokenizer process say to each other, over Node's child-process channel.
 *
 *     server ──start──► process ──ready │ refused
 *     server ──work──► process ──begun, then tokens, text or failed       one at a time
 *     server ──ping──► process ──pong
 */
import type { ChatPrompt } from "../../engine.ts";
import type { GpuUse } from "./model/library-places.ts";
import type { InheritedFiles } from "./model/model-files.ts";
import type { Failure, Refused } from "./server-channel.ts";

export interface TokenizerStart {
  readonly model: InheritedFiles;
  /** Which package's libraries are loaded: the engine's own. No backend of theirs is. */
  readonly gpu: GpuUse;
  readonly llamaLib?: string | undefined;
  /** In place of the model's own. */
  readonly chatTemplate: string | undefined;
}

export type TextTask =
  /** A prompt: a chat is rendered first. Its text may have so many bytes at most. */
  | { readonly kind: "prompt"; readonly prompt: ChatPrompt | string; readonly mostBytes: number }
  | { readonly kind: "tokenize"; readonly text: string; readonly special: boolean; readonly begin: boolean }
  /** The text of tokens, or each one's own bytes. */
  | { readonly kind: "detokenize" | "pieces"; readonly tokens: Uint32Array };

/** Tokens, the text of tokens, or their bytes: as the task's kind says. */
export type TextResult = Uint32Array | string | readonly Uint8Array[];

export type ToTokenizer =
  | { readonly kind: "start"; readonly options: TokenizerStart }
  | { readonly kind: "work"; readonly task: TextTask; readonly salt: string | undefined }
  | { readonly kind: "ping" };

export type FromTokenizer =
  /** `templateFault`: why chats are refused, where the template is there and cannot be used. */
  | { readonly kind: "ready"; readonly longestPieceBytes: number; readonly templateFault?: string | undefined }
  /** The vocabulary cannot be used. */
  | Refused
  /** The text has arrived: from now on what happens is its doing. */
  | { readonly kind: "begun" }
  | { readonly kind: "done"; readonly result: TextResult }
  | ({ readonly kind: "failed" } & Failure)
  | { readonly kind: "pong" };
