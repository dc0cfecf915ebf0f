import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { tokenBytes, type Tokens } from "../identity/tokens.ts";
import { encodeFrame, FrameReader, maxFrameBytes } from "./frames.ts";
import { parseRequest } from "./protocol.ts";

/** Requests with tokens at every place that a word may have in memory, short ones and some of several pieces. */
const texts = Array.from({ length: 64 }, (_, i) => ({
  type: i % 2 === 0 ? "lookup" : "touch",
  root: createHash("sha256").update(`${i}`).digest(),
  deadlineMs: [1, 200, 1000, 100_000][(i >> 1) % 4]!, // numbers of one to five bytes
  tokens: Uint32Array.from({ length: i % 7 === 0 ? 60_000 : i }, (_unused, at) => i * 100_000 + at),
}));

test.each([1021, 65_536, 10_000_000])(
  "requests cut into pieces of %i bytes are read as they were sent",
  (pieceBytes) => {
    const stream = Buffer.concat(
      texts.map(({ tokens, ...text }, id) => {
        const cost = text.type === "lookup" ? { computeNs: 0, awaited: false } : {};
        return encodeFrame({ ...text, id, tenant: null, tokens: tokenBytes(tokens), ...cost });
      }),
    );
    const reader = new FrameReader();
    reader.limitBytes = maxFrameBytes;
    const read: { root: string; tokens: Tokens }[] = [];
    for (let at = 0; at < stream.length; at += pieceBytes) {
      reader.push(Buffer.from(stream.subarray(at, at + pieceBytes)));
      for (let body = reader.next(); body !== undefined; body = reader.next()) {
        const request = parseRequest(body);
        if (request.type === "lookup" || request.type === "touch")
          read.push({ root: request.root, tokens: request.tokens.slice() });
      }
    }
    expect(read.map(({ root }) => root)).toEqual(texts.map(({ root }) => root.toString("hex")));
    const wrong = read.filter(
      ({ tokens }, i) => Buffer.compare(tokenBytes(tokens), tokenBytes(texts[i]!.tokens)) !== 0,
    );
    expect(wrong).toHaveLength(0);
    expect(reader.pendingBytes).toBe(0);
  },
);

test("a frame that has begun is pending, its length alone included", () => {
  const frame = encodeFrame({ type: "bye" });
  const reader = new FrameReader();
  for (const [i, byte] of frame.entries()) {
    expect(reader.pendingBytes).toBe(i);
    reader.push(Buffer.from([byte]));
    if (i < frame.length - 1) expect(reader.next()).toBeUndefined();
  }
  expect(reader.next()?.length).toBe(frame.length - 4);
  expect(reader.pendingBytes).toBe(0);
});

test("the pieces of a long frame are given back once it is put together; what was given out stays until more comes", () => {
  const reader = new FrameReader();
  reader.limitBytes = maxFrameBytes;
  const short = encodeFrame({ type: "short" });
  const long = encodeFrame({ bytes: new Uint8Array(150_000).fill(3) });
  const pieces = [long.subarray(0, 65_536), long.subarray(65_536, 131_072), long.subarray(131_072)].map(ownBytes);
  for (const piece of pieces) reader.push(piece);
  expect(reader.next()).toEqual(long.subarray(4));
  expect(pieces.map(({ length }) => length)).toEqual([0, 0, 0]);

  const [first, rest] = [long.subarray(0, 65_536), long.subarray(65_536)].map((piece) => ownBytes(piece));
  const shared = ownBytes(Buffer.concat([short, first!]));
  reader.push(shared);
  const body = reader.next();
  reader.push(rest!);
  expect(body).toEqual(short.subarray(4));
  expect(reader.next()).toEqual(long.subarray(4));
});

/** A piece in memory of its own, as a socket gives it. */
function ownBytes(bytes: Uint8Array): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  own.set(bytes);
  return own;
}
