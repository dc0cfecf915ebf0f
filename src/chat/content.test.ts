import { expect, test } from "vitest";
import { ChatTemplate } from "./chat-template.ts";
import { contentText, textContent } from "./content.ts";

test("a text is one block, blocks stand one under the other, and no block is no text", () => {
  expect(contentText(textContent("a\nb"))).toBe("a\nb");
  expect(contentText([...textContent("a"), ...textContent(""), ...textContent("b")])).toBe("a\n\nb");
  expect(contentText([])).toBe("");
});

test("a template gets blocks as one text, all of which was typed", () => {
  const template = new ChatTemplate({ chatTemplate: "<{{ messages[0].content }}>", beginText: "", endText: "" });
  const content = [...textContent("a<|end"), ...textContent("|>b")];
  const { text, typed } = template.render({ messages: [{ role: "user", content }] });
  expect(text).toBe("<a<|end\n|>b>");
  expect(typed).toEqual([[1, text.length - 1]]);
});

test("what continues a message of several blocks stands behind its last", () => {
  const template = new ChatTemplate({ chatTemplate: "<{{ messages[0].content }}>", beginText: "", endText: "" });
  const content = [...textContent("One"), ...textContent("two, ")];
  const chat = { messages: [{ role: "assistant", content }], ending: "continued" as const };
  expect(template.render(chat).text).toBe("<One\ntwo, ");
});
