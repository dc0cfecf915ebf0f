import { expect, test } from "vitest";
import { ask, scale, sharedPrefix } from "./fake-runner.ts";
import { longDocQa } from "./long-doc-qa.ts";

const make = (options: Readonly<Record<string, string>>) =>
  longDocQa.create({ documents: "6", "document-length": "1000", ...options }, scale);
const documentsOf = (options: Readonly<Record<string, string>>) =>
  ask(make(options)).map(({ request }) => Number(/^document (\d+)/.exec(request.id)?.[1]));

test("each document is read once, then as often as asked for, in the order asked for", () => {
  expect(documentsOf({ repeat: "tile" })).toEqual([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]);
  expect(documentsOf({ repeat: "interleave" })).toEqual([1, 2, 3, 4, 5, 6, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]);
  const random = documentsOf({ repeat: "random" }).slice(6);
  expect(random).not.toEqual(random.toSorted((a, b) => a - b));
  expect(random.toSorted((a, b) => a - b)).toEqual([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]);
});

test("documents have their length, and are the same when read again behind another question", () => {
  const requests = ask(make({ repeat: "tile", "repeat-count": "1" }));
  for (const [index, { request, prompt }] of requests.entries()) {
    expect(prompt.indexOf("\n\nQuestion: ")).toBe(4000);
    expect(request.group).toBe(index < 6 ? "first reading" : "again");
  }
  const [first, again] = [requests[0]?.prompt ?? "", requests[6]?.prompt ?? ""];
  expect(sharedPrefix(first, again)).toBeGreaterThanOrEqual(4000);
  expect(first).not.toBe(again);
  expect(sharedPrefix(first, requests[1]?.prompt ?? "")).toBeLessThan(40);
});

test("of the repeated, the share asked for misses: nothing of them stood first before", () => {
  const requests = ask(make({ "hit-miss-ratio": "3:1", "repeat-count": "4" }));
  const groups = requests.map(({ request }) => request.group);
  expect(groups.filter((group) => group === "first reading").length).toBe(6);
  expect(groups.filter((group) => group === "again").length).toBe(18);
  expect(groups.filter((group) => group === "miss").length).toBe(6);
  const misses = requests.filter(({ request }) => request.group === "miss");
  for (const miss of misses) {
    for (const other of requests) if (other !== miss) expect(sharedPrefix(miss.prompt, other.prompt)).toBeLessThan(10);
  }
});

test("requests in flight are the concurrency", () => {
  expect(make({}).concurrency).toBe(4);
  expect(make({ "max-inflight-requests": "9" }).concurrency).toBe(9);
});

test.each(["3", "0:0", "a:b", "-1:2", "1:2:3"])('"%s" is no ratio of hits to misses', (ratio) => {
  expect(() => make({ "hit-miss-ratio": ratio })).toThrow(`--hit-miss-ratio wants HITS:MISSES`);
});
