import * as fc from "fast-check";
import { expect, test } from "vitest";
import { pieceOf } from "../model/piece.ts";
import { TextStream } from "./text-stream.ts";

/** Feeds `text` in byte pieces of the given lengths; token i is the number i. */
function run(text: string, lengths: readonly number[], stops: readonly string[]) {
  const bytes = Buffer.from(text, "utf8");
  const stream = new TextStream<number>(stops);
  const pieces: string[] = [];
  const tokens: number[] = [];
  let at = 0;
  for (let token = 0; at < bytes.length; token += 1) {
    const length = Math.max(1, lengths[token % lengths.length] ?? 1);
    const released = stream.push(token, pieceOf(bytes.subarray(at, at + length)));
    at += length;
    pieces.push(released.text);
    tokens.push(...released.tokens);
    if (released.stopped) return { text: pieces.join(""), pieces, tokens, stopped: true };
  }
  const rest = stream.finish();
  return { text: pieces.join("") + rest.text, pieces, tokens: [...tokens, ...rest.tokens], stopped: false };
}

test("no piece cuts a character, whatever the bytes' borders", () => {
  const text = "naïve 日本語 👩‍👩‍👧 end";
  for (const length of [1, 2, 3, 5]) {
    const result = run(text, [length], []);
    expect(result.text).toBe(text);
    expect(result.pieces.join("")).not.toContain("\uFFFD");
  }
});

test("an answer that ends within a character ends with U+FFFD", () => {
  const stream = new TextStream<number>([]);
  expect(stream.push(0, pieceOf(Buffer.from([0xe6, 0x97])))).toEqual({ text: "", tokens: [], stopped: false });
  expect(stream.finish()).toEqual({ text: "\uFFFD", tokens: [0], stopped: false });
});

test("a stop text over several tokens is found, and nothing from it on is sent", () => {
  const result = run("one two STOP three", [3], ["STOP", "never"]);
  expect(result).toMatchObject({ text: "one two ", stopped: true });
  expect(result.tokens).toEqual([0, 1, 2]);
});

test("what could begin a stop text is held back until it does not", () => {
  const stream = new TextStream<string>(["\n\nUser:"]);
  expect(stream.push("a", pieceOf(Buffer.from("hi\n\nUs")))).toEqual({ text: "hi", tokens: [], stopped: false });
  expect(stream.push("b", pieceOf(Buffer.from("e it")))).toEqual({
    text: "\n\nUse it",
    tokens: ["a", "b"],
    stopped: false,
  });
});

test("a stop text is not looked for before as many tokens are out as there must be", () => {
  const stream = new TextStream<number>(["STOP"], { from: 2 });
  expect(stream.push(0, pieceOf(Buffer.from("a STOP")))).toEqual({ text: "a STOP", tokens: [0], stopped: false });
  expect(stream.push(1, pieceOf(Buffer.from(" ST")))).toEqual({ text: " ST", tokens: [1], stopped: false });
  expect(stream.push(2, pieceOf(Buffer.from("OP STOP b")))).toEqual({ text: "OP ", tokens: [2], stopped: true });
});

test("pieces and tokens add up, and the stop is where the plain search finds it", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom("a", "b", "é", "日", "👍"), maxLength: 30 }),
      fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 5 }),
      fc.array(fc.string({ unit: fc.constantFrom("a", "b", "é", "👍"), minLength: 1, maxLength: 4 }), { maxLength: 2 }),
      (text, lengths, stops) => {
        const result = run(text, lengths, stops);
        const places = stops.map((stop) => text.indexOf(stop)).filter((place) => place !== -1);
        if (!result.stopped) {
          expect(places).toEqual([]);
          expect(result.text).toBe(text);
        } else {
          // Found as soon as a stop is complete: an earlier, longer one may not have been there yet.
          expect(stops.some((stop) => text.startsWith(result.text + stop))).toBe(true);
        }
        expect(result.tokens).toEqual(result.tokens.map((_, index) => index));
      },
    ),
    { seed: 7, numRuns: 300 },
  );
});
