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

test.each([
  { unsaid: false, layout: "unified" },
  { unsaid: true, layout: "unified" },
  { unsaid: true, layout: "streams" },
] as const)("moved text is a miss from there on, whether a lookup says so or not: %o", async ({ unsaid, layout }) => {
  const prompt = someTokens(6 * chunkTokens, 31);
  const first = new Rig(model, {});
  rigs.push(first);
  const cold = await first.ask(prompt);
  await first.settled();
  Object.assign(first.cache.faults, { movedFrom: 2 * chunkTokens, movedUnsaid: unsaid });

  const second = new Rig(model, { cache: first.cache, layout });
  rigs.push(second);
  const warm = await second.ask(prompt);
  expect(warm.report).toMatchObject({ computedTokens: 4 * chunkTokens, reused: { memory: 2 * chunkTokens } });
  expect(warm.tokens).toEqual(cold.tokens);
  expect(first.cache.leases.size).toBe(0);
});

test.each([
  { costs: "more than a store's answer", computeMsPerToken: 10, computed: 1 },
  { costs: "less", computeMsPerToken: 0.1, computed: 6 * chunkTokens },
])("an answer of 350 ms is waited for where computing costs $costs", async ({ computeMsPerToken, computed }) => {
  const prompt = someTokens(6 * chunkTokens, 32);
  const first = new Rig(model, {});
  rigs.push(first);
  await first.ask(prompt);
  await first.settled();
  first.cache.faults.lookupMs = 350;

  const second = new Rig(model, { cache: first.cache, computeMsPerToken });
  rigs.push(second);
  expect((await second.ask(prompt)).report.computedTokens).toBe(computed);
});

test.each(["lookup", "load"] as const)(
  "a client that leaves while a %s hangs gives its sequence up at once",
  async (hang) => {
    const prompt = someTokens(6 * chunkTokens, 33);
    const first = new Rig(model, {});
    rigs.push(first);
    await first.ask(prompt);
    await first.settled();

    const second = new Rig(model, { cache: first.cache, computeMsPerToken: 1000, sequences: 1 });
    rigs.push(second);
    first.cache.faults.hang = hang;
    const { id } = second.start(prompt);
    await new Promise((resolve) => setTimeout(resolve, 50));
    second.scheduler.cancel(id);
    const began = performance.now();
    const next = await second.ask(someTokens(20, 34), { cache: { salt: "", read: false, save: false } });
    expect(next.report.computedTokens).toBe(20);
    expect(performance.now() - began).toBeLessThan(900); // a lookup is waited for 1 s, a load 10
  },
);

test("where cells cannot be made what the cache gave meanwhile is given back, and the prompt is computed", async () => {
  const prompt = someTokens(6 * chunkTokens, 34);
  const first = new Rig(model, {});
  rigs.push(first);
  const cold = await first.ask(prompt);
  await first.settled();

  const second = new Rig(model, { cache: first.cache, layout: "streams" });
  rigs.push(second);
  const [{ copies }] = second.contexts as [Rig["contexts"][number]];
  const asked = first.cache.leases.size;
  copies.restore = () => Promise.reject(new Error("no cells"));
  const warm = await second.ask(prompt);
  expect(warm.report).toMatchObject({ computedTokens: prompt.length, reused: {} });
  expect(warm.tokens).toEqual(cold.tokens);
  await expect.poll(() => first.cache.leases.size).toBe(asked);
});
