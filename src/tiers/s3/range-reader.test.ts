import { expect, test } from "vitest";
import { RangeReader, type Span } from "./range-reader.ts";

const object = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);
const facts = { etag: "", ageMs: 0 };

/** Over one object, with what was asked for, and pieces as they may come. */
function reading(pieceBytes = 7) {
  const asked: [name: string, from: number, bytes: number][] = [];
  const reader = new RangeReader(async (name, { from, bytes, makeSink }, signal) => {
    asked.push([name, from, bytes]);
    const sink = makeSink();
    for (let at = from; at < from + bytes; at += pieceBytes) {
      await new Promise((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
      sink(Buffer.from(object.subarray(at, Math.min(from + bytes, at + pieceBytes))));
    }
    return facts;
  });
  const { signal } = new AbortController();
  const read = (name: string, from: number, spans: readonly Span[]) => reader.read({ name, from, spans, signal });
  return { reader, asked, read };
}

test("neighbours of one object come in one request, others in their own, each to its place", async () => {
  const { asked, read } = reading();
  const places = [0, 100, 200, 400, 500].map((from) => ({ from, into: new Uint8Array(100) }));
  const other = new Uint8Array(50);
  await Promise.all([
    ...places.toReversed().map(({ from, into }) => read("a", from, [into.subarray(0, 30), into.subarray(30)])),
    read("b", 300, [{ skippedBytes: 10 }, other.subarray(0, 0), other]),
  ]);
  expect(asked).toEqual([
    ["a", 0, 300],
    ["a", 400, 200],
    ["b", 300, 60],
  ]);
  for (const { from, into } of places) expect(into).toEqual(object.slice(from, from + 100));
  expect(other).toEqual(object.slice(310, 360));
});

test("one that is given up has its memory back at once; its neighbours get theirs", async () => {
  const { reader, read } = reading();
  const giveUp = new AbortController();
  const [lost, kept] = [new Uint8Array(100), new Uint8Array(100)];
  const first = reader.read({ name: "a", from: 0, spans: [lost], signal: giveUp.signal });
  const second = read("a", 100, [kept]);
  while (lost[1] === 0) await new Promise((resolve) => setImmediate(resolve));
  giveUp.abort();
  await expect(first).rejects.toMatchObject({ code: "TIER_UNAVAILABLE" });
  const untouched = lost.slice();
  await second;
  expect(lost).toEqual(untouched);
  expect(kept).toEqual(object.slice(100, 200));
});
