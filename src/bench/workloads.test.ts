/** What holds for every workload. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { RepriseError } from "../errors.ts";
import { workloads } from "./workloads.ts";
import { ask, scale } from "./workloads/fake-runner.ts";

const traceFile = join(mkdtempSync(join(tmpdir(), "workloads-")), "trace.jsonl");
const lines = Array.from({ length: 8 }, (_, index) => ({
  timestamp: index * 10,
  input_length: 1200,
  output_length: 20,
  hash_ids: [0, index, 100 + index],
}));
writeFileSync(traceFile, lines.map((line) => JSON.stringify(line)).join("\n"));

/** Small enough to make in a moment. */
const small: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "cold-warm": { prompts: "3", tokens: "500" },
  "multi-round-qa": { "num-users": "4", "num-rounds": "3", "user-history-prompt": "1000", "checked-share": "0.5" },
  "long-doc-qa": { documents: "4", "document-length": "1000", "hit-miss-ratio": "3:1", "checked-share": "0.5" },
  rag: { pool: "10", requests: "8" },
  agent: { agents: "2", turns: "3" },
  trace: { trace: traceFile, "checked-share": "0.5" },
};

describe.each(Object.entries(workloads))("%s", (name, definition) => {
  const options = small[name] ?? {};
  const make = (seed: number) => ask(definition.create(options, { ...scale, seed }), { actors: 8 });

  test("the same seed gives the same requests at the same times, another seed others", () => {
    const plain = (seed: number) => make(seed).map(({ request, dueMs }) => ({ request, dueMs }));
    expect(plain(1)).toEqual(plain(1));
    expect(plain(1)[0]?.request.body).not.toEqual(plain(2)[0]?.request.body);
  });

  test("one workload can be run for several targets", () => {
    const workload = definition.create(options, scale);
    const requests = () => ask(workload, { actors: 8 }).map(({ request }) => request);
    expect(requests()).toEqual(requests());
  });

  test("every request has a name of its own", () => {
    const ids = make(1).map(({ request }) => request.id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  const hasChecks = "checked-share" in definition.options;

  test.runIf(hasChecks)("an expected answer stands in the text, and its question at the end", () => {
    const checked = make(1).filter(({ request }) => request.expected !== undefined);
    expect(checked.length).toBeGreaterThan(0);
    for (const { request, prompt } of checked) {
      const [text, question] = [prompt.slice(0, prompt.lastIndexOf("Question: ")), prompt.split("\n\n").at(-1)];
      const value = request.expected?.slice(0, -1).toLowerCase().split(" ").at(-1);
      expect(text.toLowerCase()).toContain(value);
      expect(question).toMatch(/Question: .*\?$/);
      expect(request.body).not.toHaveProperty("ignore_eos");
    }
  });

  test.runIf(hasChecks)("nothing is checked at share 0, and every answer has its length", () => {
    const workload = definition.create({ ...options, "checked-share": "0" }, scale);
    for (const { request } of ask(workload, { actors: 8 })) {
      expect(request.expected).toBeUndefined();
      expect(request.body).toMatchObject({ ignore_eos: true, max_tokens: expect.any(Number) });
    }
  });

  test("every option is read, and a bad value is named by its flag", () => {
    const bad = Object.fromEntries(Object.keys(definition.options).map((flag) => [flag, "?"]));
    const faults = faultsOf(() => definition.create(bad, scale));
    for (const flag of Object.keys(definition.options)) if (flag !== "trace") expect(faults).toContain(`--${flag} `);
  });
});

function faultsOf(create: () => unknown): string {
  try {
    create();
  } catch (error) {
    if (error instanceof RepriseError && error.code === "BAD_CONFIG") return error.message;
    throw error;
  }
  return "";
}
