import { expect, test } from "vitest";
import { ChatTemplate } from "./chat-template.ts";

function render(chatTemplate: string, tool_calls: unknown): string {
  const template = new ChatTemplate({ chatTemplate, beginText: "", endText: "" });
  return template.render({ messages: [{ role: "assistant", content: [], tool_calls }] }).text;
}

test("arguments reach the template as the values that their text says", () => {
  const shown = (given: unknown) =>
    render("{{ messages[0].tool_calls[0].function.arguments | tojson }}", [
      { function: { name: "f", arguments: given } },
    ]);
  expect(shown('{"a": 1.0, "b": null, "c": 12345678901234567890}')).toBe(
    '{"a": 1.0, "b": null, "c": 12345678901234567890}',
  );
  expect(shown({ a: [true] })).toBe('{"a": [true]}');
  for (const nothing of ["", null, undefined]) expect(shown(nothing)).toBe("{}");
  expect(() => shown('{"a": ')).toThrowError(
    expect.objectContaining({ code: "BAD_REQUEST", field: "messages[0].tool_calls[0].function.arguments" }),
  );
});

test("no calls are not there", () => {
  const isDefined = "{{ messages[0].tool_calls is defined }}";
  for (const nothing of [[], null, "x"]) expect(render(isDefined, nothing)).toBe("False");
  expect(render(isDefined, [{}])).toBe("True");
});
