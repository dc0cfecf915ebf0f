/** What models think before they answer: how much of it is asked for, and what earlier messages say of it. */

/** How much a model is to think; the words of OpenAI's API and of those that look like it. */
export const reasoningEfforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"] as const;
export type ReasoningEffort = (typeof reasoningEfforts)[number];

/** An effort under the names that templates know. */
export function effortArguments(effort: ReasoningEffort): Readonly<Record<string, unknown>> {
  return { reasoning_effort: effort, enable_thinking: effort !== "none" };
}

/** Where a message says what the model thought: the first of these that it has. */
const reasoningFields: readonly string[] = ["reasoning_content", "thinking", "reasoning"];

/** A message's fields, with what the model thought under both names that templates know. */
export function withReasoning(given: readonly (readonly [string, unknown])[]): readonly (readonly [string, unknown])[] {
  const fields: Record<string, unknown> = Object.fromEntries(given);
  const reasoning = reasoningFields.map((name) => fields[name]).find((value) => value !== undefined);
  if (reasoning === undefined) return given;
  return Object.entries({ thinking: reasoning, ...fields, reasoning_content: reasoning });
}
