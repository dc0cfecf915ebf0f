import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/cache.ts";
import { readChatTemplate } from "./chat-template-file.ts";

test("a template file is read when it is one, and its fault named with the line when it is not", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "chat.jinja");
  const read = (content: string | Uint8Array) => {
    writeFileSync(path, content);
    return readChatTemplate({ chatTemplate: path });
  };
  expect(readChatTemplate({ chatTemplate: "" })).toBeUndefined();
  expect(read("{{ messages }}\n")).toBe("{{ messages }}\n");
  const refused = (message: RegExp) =>
    expect.objectContaining({ code: "BAD_CONFIG", message: expect.stringMatching(message) });
  expect(() => read("a\n{% if %}")).toThrow(refused(/chat\.jinja: line 2: /));
  expect(() => read(new Uint8Array([0xff]))).toThrow(refused(/not UTF-8/));
  expect(() => read("x".repeat(1024 ** 2 + 1))).toThrow(refused(/larger than 1048576/));
  expect(() => readChatTemplate({ chatTemplate: folder.path })).toThrow(refused(/not a regular file/));
  expect(() => readChatTemplate({ chatTemplate: join(folder.path, "none") })).toThrow(refused(/none: /));
});
