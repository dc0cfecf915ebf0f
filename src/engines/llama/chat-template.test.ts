import { expect, test } from "vitest";
import { chatTemplate } from "../../../test/support/tiny-gguf.ts";
import { ChatTemplate } from "./chat-template.ts";
import type { LoadedModel } from "./messages.ts";

const messages = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Hi" },
];

function model(template: string | undefined): LoadedModel {
  const info = {
    name: "m",
    contextTokens: 1,
    vocabularySize: 1,
    architecture: "llama",
    parameters: 1,
    created: 0,
    reuse: true,
  } as const;
  return { info, chatTemplate: template, beginText: "<s>", endText: "</s>" };
}

test("a chat becomes the template's text, with the answer's opening", () => {
  const text = new ChatTemplate(model(chatTemplate)).render({ messages });
  expect(text).toBe("<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n");
});

test("special tokens, tools and arguments reach the template", () => {
  const template = "{{ bos_token }}{{ tools[0].name }}{{ mood }}{{ eos_token }}";
  const chat = { messages, tools: [{ name: "search" }], templateArguments: { mood: "calm" } };
  expect(new ChatTemplate(model(template)).render(chat)).toBe("<s>searchcalm</s>");
});

test("a template that refuses, and a model without one, are the request's error", () => {
  const refusing = new ChatTemplate(model("{{ raise_exception('roles must alternate') }}"));
  expect(() => refusing.render({ messages })).toThrowError(
    expect.objectContaining({ code: "BAD_REQUEST", field: "messages", message: expect.stringContaining("alternate") }),
  );
  expect(() => new ChatTemplate(model(undefined)).render({ messages })).toThrowError(
    expect.objectContaining({ code: "BAD_REQUEST" }),
  );
  expect(() => new ChatTemplate(model("{% for %}"))).toThrowError(expect.objectContaining({ code: "MODEL_INVALID" }));
});
