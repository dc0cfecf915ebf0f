import * as fc from "fast-check";
import { expect, test } from "vitest";
import { doneFrame, pieceFrame, wholeAnswer } from "./fake-server.ts";
import { errorWords, StreamParser } from "./stream-parser.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

test("a recorded stream with known times gives these times back exactly", () => {
  const recording: [number, string][] = [
    [10.25, ": keep-alive\n\n"],
    [20.5, 'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'],
    [31.125, pieceFrame("Os")],
    [47.75, pieceFrame("lo") + pieceFrame(" is")],
    [63.5, `data: {"choices":[{"text":" far"}]}\r\n\r\n`],
    [70.5, 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'],
    [71.5, 'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}\n\n'],
    [72.125, doneFrame],
  ];
  const parser = new StreamParser();
  for (const [at, text] of recording) parser.push(bytes(text), at);
  expect(parser.tokenAt).toEqual([31.125, 47.75, 47.75, 63.5]);
  expect(parser.doneAt).toBe(72.125);
  expect(parser.text).toBe("Oslo is far");
  expect(parser.usage).toEqual({ promptTokens: 9, completionTokens: 4 });
  expect(parser.finished).toBe(true);
  expect(parser.error).toBeUndefined();
});

test("a frame cut in two has the time of the read that brought its end", () => {
  const frame = bytes(pieceFrame("tåg"));
  for (let cut = 1; cut < frame.length; cut += 1) {
    const parser = new StreamParser();
    parser.push(frame.subarray(0, cut), 1);
    parser.push(frame.subarray(cut), 2);
    expect(parser.text).toBe("tåg");
    expect(parser.tokenAt).toEqual([cut === frame.length - 1 ? 1 : 2]); // only the blank line was missing
  }
});

test("wherever a stream is cut, and whatever ends its lines, it says the same", () => {
  const pieces = ["Grüße", " 東京", " 🦊", "\n\n", " data: x", ""];
  const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 });
  fc.assert(
    fc.property(cuts, fc.constantFrom("\n", "\r\n"), (lengths, lineEnd) => {
      const stream = bytes(wholeAnswer(pieces).replaceAll("\n", lineEnd));
      const parser = new StreamParser();
      for (let from = 0, read = 0; from < stream.length; read += 1) {
        const to = from + lengths[read % lengths.length]!; // at least one length
        parser.push(stream.subarray(from, to), read);
        from = to;
      }
      expect(parser.text).toBe(pieces.join(""));
      expect(parser.tokenAt).toHaveLength(5);
      expect(parser.usage).toEqual({ promptTokens: 100, completionTokens: 6, cachedTokens: 60 });
      expect(parser.reused).toEqual({ resident: 0, memory: 40, disk: 20 });
      expect(parser.doneAt).toBeDefined();
    }),
    { seed: 7, numRuns: 200 },
  );
});

test("thoughts are tokens, and no part of the answer", () => {
  const parser = new StreamParser();
  parser.push(bytes('data: {"choices":[{"delta":{"reasoning_content":"Hm"}}]}\n\n'), 5);
  parser.push(bytes(pieceFrame("Yes")), 9);
  expect(parser.tokenAt).toEqual([5, 9]);
  expect(parser.text).toBe("Yes");
});

test("garbage and errors within the stream are told in the server's words", () => {
  const garbage = new StreamParser();
  garbage.push(bytes("data: {oops\n\n"), 1);
  expect(garbage.error).toBe("not JSON: {oops");
  const failed = new StreamParser();
  failed.push(bytes('data: {"error": {"message": "the engine ended"}}\n\n'), 1);
  expect(failed.error).toBe("the engine ended");
  expect(errorWords('{"error":{"message":"queue is full"}}')).toBe("queue is full");
  expect(errorWords("<h1>Bad\n Gateway</h1>")).toBe("<h1>Bad Gateway</h1>");
});
