/** What the engine takes of what is stored: the exact prefix, and nothing where moved text begins. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { chunkTokens, loadTiny, Rig } from "../../../../test/support/scheduler-rig.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import type { Model } from "../model/model.ts";

let model: Model;
beforeAll(() => {
  model = loadTiny({ family: "llama" });
});

const rigs: Rig[] = [];
afterAll(async () => {
  for (const rig of rigs) await rig.close();
});

test.each([false, true])("moved text is a miss from there on, whether a lookup says so or not (%s)", async (unsaid) => {
  const prompt = someTokens(6 * chunkTokens, 31);
  const first = new Rig(model, {});
  rigs.push(first);
  const cold = await first.ask(prompt);
  await first.settled();
  Object.assign(first.cache.faults, { movedFrom: 2 * chunkTokens, movedUnsaid: unsaid });

  const second = new Rig(model, { cache: first.cache });
  rigs.push(second);
  const warm = await second.ask(prompt);
  expect(warm.report).toMatchObject({ computedTokens: 4 * chunkTokens, reused: { memory: 2 * chunkTokens } });
  expect(warm.tokens).toEqual(cold.tokens);
  expect(first.cache.leases.size).toBe(0);
});
