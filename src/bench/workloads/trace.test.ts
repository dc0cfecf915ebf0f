import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ask, scale, sharedPrefix } from "./fake-runner.ts";
import { parseTrace } from "./mooncake-trace.ts";
import { trace } from "./trace.ts";

const folder = mkdtempSync(join(tmpdir(), "trace-"));
const BLOCK = 512 * 4;

/** [timestamp, input_length, output_length, hash_ids] */
type Line = readonly [number, number, number, readonly number[]];
const LINES: readonly Line[] = [
  [1000, 1200, 50, [0, 1, 2]],
  [1500, 1500, 0, [0, 1, 3]],
  [1500, 2000, 7, [4, 5, 6, 7]],
  [4000, 700, 9, [0, 8]],
];

function jsonLines(lines: readonly Line[]): string {
  return lines
    .map(([timestamp, input_length, output_length, hash_ids]) =>
      JSON.stringify({ timestamp, input_length, output_length, hash_ids }),
    )
    .join("\n");
}

function replay(lines: readonly Line[], options: Readonly<Record<string, string>> = {}) {
  const file = join(folder, "trace.jsonl");
  writeFileSync(file, `${jsonLines(lines)}\n`);
  return ask(trace.create({ trace: file, "checked-share": "0", ...options }, scale));
}

test("every request comes at its time after the first, with its lengths", () => {
  const requests = replay(LINES);
  expect(requests.map(({ dueMs }) => dueMs)).toEqual([0, 500, 500, 3000]);
  expect(requests.map(({ prompt }) => prompt.length)).toEqual([4800, 6000, 8000, 2800]);
  expect(requests.map(({ request }) => request.body["max_tokens"])).toEqual([50, 1, 7, 9]);
});

test("equal ids are equal text, others differ", () => {
  const [one, two, three, four] = replay(LINES).map(({ prompt }) => prompt);
  const shared = (a: string | undefined, b: string | undefined) => sharedPrefix(a ?? "", b ?? "");
  expect(shared(one, two)).toBeGreaterThanOrEqual(2 * BLOCK);
  expect(shared(one, two)).toBeLessThan(2 * BLOCK + 40);
  expect(shared(one, four)).toBeGreaterThanOrEqual(BLOCK);
  expect(shared(one, four)).toBeLessThan(BLOCK + 40);
  expect(shared(one, three)).toBeLessThan(40);
});

test("the group says how much of the prompt was there before", () => {
  const groups = replay(LINES).map(({ request }) => request.group);
  expect(groups).toEqual(["nothing known", "half or more known", "nothing known", "half or more known"]);
});

test("a faster replay has shorter gaps; left out requests move no other", () => {
  expect(replay(LINES, { speed: "2" }).map(({ dueMs }) => dueMs)).toEqual([0, 250, 250, 1500]);
  expect(replay(LINES, { "max-input-length": "1200" }).map(({ dueMs }) => dueMs)).toEqual([0, 3000]);
  expect(replay(LINES, { "max-requests": "2" }).map(({ dueMs }) => dueMs)).toEqual([0, 500]);
});

test("a checked request has the length of the trace too, and its answer was not cut off", () => {
  const lines = Array.from({ length: 40 }, (_, index): Line => [index, 600 + index * 37, 5, blocksOf(index)]);
  const requests = replay(lines, { "checked-share": "1" });
  for (const [index, { request, prompt }] of requests.entries()) {
    expect(request.expected).toBeDefined();
    expect(prompt.length).toBe((600 + index * 37) * 4);
    expect(prompt).toMatch(/\n\nQuestion: .*\?$/);
    const value = request.expected?.slice(0, -1).split(" ").at(-1) ?? "";
    expect(prompt.slice(0, prompt.lastIndexOf("\n\n")).toLowerCase()).toContain(value.toLowerCase());
  }
});

test("a prompt too short for a question is not checked", () => {
  const [request] = replay([[0, 40, 5, [1]]], { "checked-share": "1" });
  expect(request?.request.expected).toBeUndefined();
  expect(request?.prompt.length).toBe(160);
});

test("bad lines are named, all together", () => {
  const good = jsonLines([[0, 100, 1, [1]]]);
  const text = [
    good,
    "{",
    "",
    '{"timestamp": 0, "input_length": 0, "output_length": 1, "hash_ids": []}',
    '{"timestamp": 0, "input_length": 600, "output_length": 1, "hash_ids": [1]}',
    '{"timestamp": "0", "input_length": 1, "output_length": 1, "hash_ids": [1]}',
  ];
  expect(() => parseTrace(text.join("\n"), "a.jsonl")).toThrow(
    [
      "a.jsonl line 2: is not JSON",
      "a.jsonl line 4: input_length wants a whole number, 1 or more",
      "a.jsonl line 5: hash_ids wants 2 ids for 600 tokens, one for every 512, and has 1",
      "a.jsonl line 6: timestamp wants milliseconds, 0 or more",
    ].join("\n"),
  );
  expect(() => parseTrace(jsonLines(LINES.toReversed()), "a.jsonl")).toThrow("line 2: timestamp is earlier");
  expect(() => parseTrace(Array.from({ length: 50 }, () => "{").join("\n"), "a.jsonl")).toThrow("and 40 more");
  expect(() => parseTrace("\n", "a.jsonl")).toThrow("a.jsonl holds no request");
});

test("without a file, or with one that is not there, the flag is named", () => {
  expect(() => trace.create({}, scale)).toThrow("--trace wants the file to replay");
  expect(() => trace.create({ trace: join(folder, "none") }, scale)).toThrow(/^--trace .*none cannot be read/);
});

function blocksOf(index: number): number[] {
  return Array.from({ length: Math.ceil((600 + index * 37) / 512) }, (_, block) => index * 10 + block);
}
