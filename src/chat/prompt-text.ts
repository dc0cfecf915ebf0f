/** A prompt as text: what a chat template renders, and what a tokenizer reads. */

/** The text of a prompt that knows which of its characters came from people. */
export interface PromptText {
  readonly text: string;
  /** Ranges [from, to) of `text`, in UTF-16 units, that people typed: no control token may come from them. In order. */
  readonly typed: readonly (readonly [from: number, to: number])[];
}

/** Does the text begin with `begin`, and did nobody type that? */
export function beginsWithOwn(prompt: PromptText, begin: string): boolean {
  return (
    begin !== "" && prompt.text.startsWith(begin) && !(prompt.typed.length > 0 && prompt.typed[0]![0] < begin.length)
  );
}
