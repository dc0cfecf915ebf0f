import { expect, test } from "vitest";
import { sampleResult } from "../../test/support/bench-result.ts";
import { RepriseError } from "../errors.ts";
import { parseResult } from "./parse-result.ts";

const good = sampleResult({ users: 1, turns: 1, rounds: 1 });

test("what was written is read back", () => {
  const whole = sampleResult();
  expect(parseResult(JSON.stringify(whole), "a.json")).toEqual(whole);
});

test.each([
  ["an empty file", "", "a.json is not JSON"],
  ["another kind of JSON", "[]", "a.json is not a benchmark result of format 1"],
  ["another format", changed({ format: 2 }), "format:"],
  ["a field too many", changed({ extra: 1 }), "extra:"],
  ["a missing field", changed({ seed: undefined }), "seed:"],
  ["a date that is none", changed({ startedAt: "yesterday" }), "startedAt:"],
  ["an outcome that is none", changedSample({ outcome: "http 42" }), "samples.0.outcome:"],
  ["a negative time", changedSample({ dueMs: -1 }), "samples.0.dueMs:"],
  ["half a token", changedSample({ promptTokens: 0.5 }), "samples.0.promptTokens:"],
  ["an end before the beginning", changedSample({ endMs: 0 }), "samples.0: its times do not follow each other"],
  ["a target that is not listed", changedSample({ target: "who" }), 'no target is called "who"'],
  ["two targets of one name", changed({ targets: [good.targets[0], good.targets[0]] }), "two have the same label"],
])("%s is refused, and the fault is named", (_, text, message) => {
  const fault = faultOf(text);
  expect(fault.code).toBe("BAD_REQUEST");
  expect(fault.message).toContain(message);
});

test("of many faults the first five are shown", () => {
  const samples = Array.from({ length: 9 }, () => ({ ...good.samples[0], target: "who" }));
  const { message } = faultOf(changed({ samples }));
  expect(message.split("\n")).toHaveLength(7);
  expect(message).toContain("and 4 more");
});

function changed(fields: Readonly<Record<string, unknown>>): string {
  return JSON.stringify({ ...good, ...fields });
}

function changedSample(fields: Readonly<Record<string, unknown>>): string {
  return changed({ samples: [{ ...good.samples[0], ...fields }] });
}

function faultOf(text: string): RepriseError {
  try {
    parseResult(text, "a.json");
  } catch (error) {
    if (error instanceof RepriseError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}
