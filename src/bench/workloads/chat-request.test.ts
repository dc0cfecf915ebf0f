import { expect, test } from "vitest";
import { chatRequest, isChecked } from "./chat-request.ts";

test.each([
  [0, 0],
  [0.1, 10],
  [0.25, 25],
  [1, 100],
])("of 100 requests, share %f is checked, spread evenly and the first among them", (share, wanted) => {
  const checked = Array.from({ length: 100 }, (_, index) => isChecked(index, share));
  expect(checked.filter(Boolean).length).toBe(wanted);
  expect(checked[0]).toBe(wanted > 0);
  if (wanted > 0) expect(checked.slice(50).filter(Boolean).length).toBeCloseTo(wanted / 2, -1);
});

test("a checked request ends where its answer does; others write all the tokens they should", () => {
  const messages = [{ role: "user", content: "Question: ?" }] as const;
  const checked = chatRequest({ id: "a", group: "g", messages, outputTokens: 100, expected: "At six." });
  expect(checked.expected).toBe("At six.");
  expect(checked.body).toEqual({ messages, temperature: 0, max_tokens: 32 });
  const other = chatRequest({ id: "a", group: "g", messages, outputTokens: 100 });
  expect(other.expected).toBeUndefined();
  expect(other.body).toEqual({ messages, temperature: 0, max_tokens: 100, ignore_eos: true });
});
