import { expect, test } from "vitest";
import { ask, scale } from "./fake-runner.ts";
import { rag } from "./rag.ts";

const make = (options: Readonly<Record<string, string>>) => ask(rag.create(options, scale));
const documentsOf = (prompt: string) => prompt.split("\n\n").slice(0, -1);

test("a prompt is k different documents of the pool, each of its length, and the question last", () => {
  const requests = make({ pool: "12", k: "4", requests: "40" });
  expect(requests.length).toBe(40);
  const pool = new Set<string>();
  for (const { prompt } of requests) {
    const documents = documentsOf(prompt);
    expect(new Set(documents).size).toBe(4);
    for (const document of documents) expect(document.length).toBe(2000);
    for (const document of documents) pool.add(document);
  }
  expect(pool.size).toBe(12);
});

test.each([
  ["0", 1, 0.5],
  ["1.0", 2, 0.6],
])("with --zipf %s the most popular document of two leads by that", (zipf, ratio, tolerance) => {
  const first = make({ pool: "2", k: "1", requests: "600", zipf, "document-length": "100" }).map(
    ({ prompt }) => prompt,
  );
  const either = documentsOf(first[0] ?? "")[0];
  const count = first.filter((prompt) => documentsOf(prompt)[0] === either).length;
  const counts = [count, first.length - count];
  expect(Math.abs(Math.max(...counts) / Math.min(...counts) - ratio)).toBeLessThan(tolerance);
});

test("documents stand in any order, also unpopular ones first", () => {
  const requests = make({ pool: "3", k: "3", requests: "60", zipf: "3" });
  expect(new Set(requests.map(({ prompt }) => documentsOf(prompt).join("|"))).size).toBe(6);
});

test("the group says whether the first document stood first before", () => {
  const seen = new Set<string>();
  for (const { request, prompt } of make({ requests: "50" })) {
    const first = documentsOf(prompt)[0] ?? "";
    expect(request.group).toBe(seen.has(first) ? "first document seen" : "first document new");
    seen.add(first);
  }
});

test("a prompt cannot hold more documents than there are", () => {
  expect(() => make({ pool: "3", k: "4" })).toThrow('--k wants no more than the 3 of --pool: "4"');
});
