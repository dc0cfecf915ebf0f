import { expect, test } from "vitest";
import { run } from "../examples/own-engine.ts";
import { temporaryFolder } from "./support/cache.ts";

test("the example's engine reads each text once, across prompts and restarts, and gets the same states", async () => {
  using folder = temporaryFolder();
  using empty = temporaryFolder();
  const system = Array.from({ length: 300 }, (_, i) => i);
  const prompts = [7, 8].map((question) => Uint32Array.from([...system, question, 9]));
  const first = await run(folder.path, prompts);
  expect(first.map(({ knownTokens }) => knownTokens)).toEqual([0, 300]);
  const again = await run(folder.path, prompts);
  expect(again.map(({ knownTokens }) => knownTokens)).toEqual([302, 302]);
  const [alone] = await run(empty.path, [prompts[1]!]);
  for (const report of [first[1]!, again[1]!]) expect(Buffer.compare(report.states, alone!.states)).toBe(0);
});
