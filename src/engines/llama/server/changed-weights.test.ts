import type { CellLayout } from "../process/context.ts";
import { afterAll, expect, test } from "vitest";
import { FakeCache } from "../../../../test/support/fake-cache.ts";
import { Rig, chunkTokens, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import { someTokens } from "../../../../test/support/tokens.ts";

const model = loadTiny({ family: "llama" });
const rigs: Rig[] = [];

afterAll(async () => {
  for (const rig of rigs) await rig.close();
});

/** An engine whose weights the test writes to. */
function rig(layout: CellLayout, slots = 200) {
  const weights = { isChanged: false };
  const weightsChanged = () => {
    const { isChanged } = weights;
    weights.isChanged = false;
    return isChanged;
  };
  const cache = new FakeCache({ chunkTokens, slotBytes: 1 << 20, slots });
  const engine = new Rig(model, { layout, weightsChanged, cache });
  rigs.push(engine);
  return { engine, weights };
}

for (const layout of ["streams", "unified"] as const) {
  const where = layout === "streams" ? "cells for each sequence" : "cells for all";

  test(`weights that were written to: what slots hold is not reused (${where})`, async () => {
    const { engine, weights } = rig(layout, 0); // what is reused is held by a sequence
    const prompt = someTokens(200, 1);
    await engine.ask(prompt);
    weights.isChanged = true;
    expect((await engine.ask(prompt)).report.reused).toEqual({});
    expect((await engine.ask(prompt)).report.reused).toEqual({ resident: 199 });
    await engine.settled();
  });

  test(`weights that are written to during a request: nothing computed since is stored, nothing kept (${where})`, async () => {
    const { engine, weights } = rig(layout);
    const prompt = someTokens(200, 3);
    const running = engine.start(prompt, { maxTokens: 100 });
    for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve)); // it runs by then
    weights.isChanged = true;
    const { report, tokens } = await running.answer;
    expect(report.computedTokens).toBe(200);
    expect(tokens).toHaveLength(100);
    await engine.settled();
    // Whole chunks of the prompt may have been computed and handed over before; those of the answer were not.
    expect(engine.savedChunks).toBeLessThanOrEqual(3);
    expect((await engine.ask(prompt)).report.reused.resident).toBeUndefined();
    await engine.settled();
  });
}
