/** What is not saved: KV that is approximate, whenever that is learned. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { chunkTokens, loadTiny, Rig } from "../../../../test/support/scheduler-rig.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import { silentLog } from "../../../log.ts";
import type { Model } from "../model/model.ts";
import { measureLayout } from "./family.ts";
import { Saver } from "./saver.ts";
import { Sequence } from "./sequence.ts";

let model: Model;
beforeAll(() => {
  model = loadTiny({ family: "llama" });
});

const rigs: Rig[] = [];
afterAll(async () => {
  for (const rig of rigs) await rig.close();
});

test.each(["before it is saved", "while it waits to be written", "never"])(
  "KV is stored up to where it is approximate, which is learned %s",
  async (when) => {
    const prompt = someTokens(4 * chunkTokens, 17);
    const rig = new Rig(model, {});
    rigs.push(rig);
    await rig.ask(prompt, { cache: { salt: "", read: false, save: false } });
    const context = rig.contexts[0]!; // a rig has one
    const layout = measureLayout(context).layout!; // the family allows reuse
    context.begin();
    for (let at = 0; at < prompt.length; at += 1) context.add(0, at, prompt[at]!, at + 1 === prompt.length);
    const sequence = new Sequence(context, 0, 1024);
    expect(context.decode(0)).toBe("done");
    sequence.append(prompt);

    const saver = new Saver({ stored: () => rig.cache, layout, wake: () => {}, onSaved: () => {}, log: silentLog });
    if (when.startsWith("before")) sequence.taint(2 * chunkTokens + 1);
    saver.add(sequence, prompt, { salt: "", read: true, save: true });
    await expect.poll(() => rig.cache.leases.size).toBeGreaterThan(1);
    await new Promise((resolve) => setImmediate(resolve));
    if (when.startsWith("while")) sequence.taint(2 * chunkTokens + 1);
    while (!saver.idle) {
      saver.work(1000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const ends = rig.cache.entries.filter(({ visible }) => visible).map(({ text }) => text.length);
    const whole = [1, 2, 3, 4].map((chunks) => chunks * chunkTokens);
    if (when === "never") expect(ends).toEqual(whole);
    else if (when.startsWith("while")) expect(ends).toEqual(whole.slice(0, 2));
    else expect(ends).toEqual([...whole.slice(0, 2), 2 * chunkTokens + 1]); // a tail
    expect(rig.cache.leases.size).toBe(0);
  },
);
