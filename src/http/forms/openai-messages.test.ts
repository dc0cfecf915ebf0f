import { describe, expect, test } from "vitest";
import { contentText, textContent } from "../../chat/content.ts";
import { chatRoles } from "../../chat/roles.ts";
import type { ChatPrompt } from "../../engine.ts";
import { fakeModel } from "../app/fake-engine.ts";
import { openAiChat } from "./openai-chat.ts";

test("a message's other fields reach the template; its parts are blocks", () => {
  const parsed = openAiChat.parse(
    {
      messages: [
        { role: "assistant", content: null, tool_calls: [{ id: "1" }] },
        { role: "tool", tool_call_id: "1", content: [{ type: "text", text: "a" }, { text: "b" }] },
      ],
    },
    fakeModel,
  );
  expect(parsed.generate.prompt).toEqual({
    messages: [
      { role: "assistant", content: [], tool_calls: [{ id: "1" }] },
      { role: "tool", tool_call_id: "1", content: [...textContent("a"), ...textContent("b")] },
    ],
  });
});

test("parts that are no text are refused by their type", () => {
  const said = (part: unknown) => () => openAiChat.parse({ messages: [{ role: "user", content: [part] }] }, fakeModel);
  for (const type of ["image_url", "input_image", "input_audio", "file", "refusal"])
    expect(said({ type, text: "x" })).toThrow(
      `messages[0].content[0] cannot be of type "${type}": this model reads only text`,
    );
  for (const part of [{ type: "text" }, { text: 7 }, { type: 7 }, "x", null, ["x"]])
    expect(said(part)).toThrow("messages[0].content[0] is no text: this model reads only text");
  expect(said({ type: "x".repeat(1_000_000) })).toThrow(/^.{0,200}$/);
});

describe("a history that is played back", () => {
  const contents = (...messages: object[]) =>
    (openAiChat.parse({ messages }, fakeModel).generate.prompt as ChatPrompt).messages.map(({ content }) =>
      contentText(content),
    );

  test("of all six roles", () => {
    const messages = chatRoles.map((role) => ({ role, content: role }));
    expect(contents(...messages)).toEqual([...chatRoles]);
  });

  test("with refusals, as a field and as a part", () => {
    expect(
      contents(
        { role: "user", content: "x" },
        { role: "assistant", content: null, refusal: "I cannot." },
        { role: "assistant", content: "Yes.", refusal: null },
        { role: "assistant", content: [{ type: "refusal", refusal: "No." }] },
        {
          role: "assistant",
          content: [
            { type: "text", text: "a" },
            { type: "refusal", refusal: "b" },
          ],
        },
      ),
    ).toEqual(["x", "I cannot.", "Yes.", "No.", "a\nb"]);
  });

  test("with two turns of the assistant at its end, as OpenAI takes it", () => {
    const turns = [
      { role: "user", content: "x" },
      { role: "assistant", content: "a" },
      { role: "assistant", content: "b" },
    ];
    expect(contents(...turns)).toEqual(["x", "a", "b"]);
  });

  test("with calls of tools and functions that had no text", () => {
    expect(
      contents(
        { role: "assistant", content: null, tool_calls: [{ id: "1" }] },
        { role: "assistant", function_call: { name: "f", arguments: "{}" } },
        { role: "function", name: "f", content: "7" },
      ),
    ).toEqual(["", "", "7"]);
  });
});
