/** What a message says: a list of blocks to whoever speaks of chats, and one text to templates. */
import type { ContentBlock } from "../engine.ts";

/** A text as all that a message says. */
export function textContent(text: string): readonly ContentBlock[] {
  return [{ kind: "text", text }];
}

/** The blocks as the one text that templates read: one under the other, as vLLM and llama-server join them. */
export function contentText(content: readonly ContentBlock[]): string {
  return content.map(({ text }) => text).join("\n");
}
