import { expect, test } from "vitest";
import { KnownTokens } from "./known-tokens.ts";

const text = "a long text";
const special = { special: true };
const never = () => expect.fail("it is known");

test("a text is tokenized once, and its tokens are what they were then", () => {
  const known = new KnownTokens();
  const buffer = new Uint32Array([1, 2, 3, 4]);
  known.of("ada", text, special, () => buffer.subarray(0, 3));
  buffer.fill(9);
  expect(known.of("ada", text, special, never)).toEqual(new Uint32Array([1, 2, 3]));
});

test.each([
  ["another salt", "bob", text, special],
  ["the same characters, cut elsewhere", "adaa", " long text", special],
  ["another text", "ada", `${text}s`, special],
  ["another kind of text", "ada", text, { special: false }],
])("%s finds nothing", (_name, salt, asked, kind) => {
  const known = new KnownTokens();
  known.of("ada", text, special, () => new Uint32Array([1]));
  expect(known.of(salt, asked, kind, () => new Uint32Array([2]))).toEqual(new Uint32Array([2]));
});

test("the least recently used goes first, and what is larger than all is not kept", () => {
  const known = new KnownTokens({ capacityBytes: 3 * 1000 });
  const tokenized: string[] = [];
  const ask = (asked: string, count = 200) => {
    known.of("ada", asked, special, () => {
      tokenized.push(asked);
      return new Uint32Array(count);
    });
  };
  for (const each of ["1", "2", "3", "1"]) ask(each);
  ask("huge", 1000);
  ask("4"); // 2 goes
  for (const each of ["1", "3", "4", "2", "huge"]) ask(each);
  expect(tokenized).toEqual(["1", "2", "3", "huge", "4", "2", "huge"]);
});
