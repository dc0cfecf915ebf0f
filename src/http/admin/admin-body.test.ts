import { expect, test } from "vitest";
import { parseDetokenize, parseTokenize } from "./admin-body.ts";
import { badField } from "../../../test/support/bad-field.ts";
import { fakeModel } from "../app/fake-engine.ts";

test("tokenize has llama-server's defaults", () => {
  const defaults = { model: undefined, text: "a", begin: false, special: true, withPieces: false };
  expect(parseTokenize({ content: "a" })).toEqual(defaults);
  const changed = { prompt: "a", add_special: true, parse_special: false, with_pieces: true };
  expect(parseTokenize(changed)).toEqual({ ...defaults, begin: true, special: false, withPieces: true });
});

test("what is no question for the tokenizer is refused by the field's name", () => {
  for (const body of [null, [], "text", 5]) expect(badField(() => parseTokenize(body))).toBeUndefined();
  expect(badField(() => parseTokenize({}))).toBe("content");
  expect(badField(() => parseDetokenize({ tokens: "x" }, fakeModel))).toBe("tokens");
  expect(badField(() => parseDetokenize({ tokens: [0, "x"] }, fakeModel))).toBe("tokens[1]");
});
