import { expect, test } from "vitest";
import { ChatTemplate } from "./chat-template.ts";
import { textContent } from "./content.ts";
import { effortArguments } from "./reasoning.ts";

test("what the model thought has both names that templates know", () => {
  const template = new ChatTemplate({ chatTemplate: "{{ messages[0] | tojson }}", beginText: "", endText: "" });
  const shown = (fields: object) =>
    template.render({ messages: [{ role: "assistant", content: textContent("x"), ...fields }] }).text;
  for (const field of ["reasoning", "thinking"])
    expect(JSON.parse(shown({ [field]: "y", reasoning_content: null }))).toMatchObject({
      reasoning_content: "y",
      thinking: "y",
    });
  expect(JSON.parse(shown({ reasoning_content: "y", thinking: "z" }))).toMatchObject({
    reasoning_content: "y",
    thinking: "z",
  });
  expect(shown({ reasoning_content: null })).toBe('{"role": "assistant", "content": "x"}');
});

test("an effort is thinking, but for none", () => {
  expect(effortArguments("low")).toEqual({ reasoning_effort: "low", enable_thinking: true });
  expect(effortArguments("none")).toEqual({ reasoning_effort: "none", enable_thinking: false });
});
