import { expect, onTestFinished, test } from "vitest";
import { Rig, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import { someTokens } from "../../../../test/support/tokens.ts";

test("a sequence that comes free goes to the tenant with the fewest, however many requests of another wait", async () => {
  const engine = new Rig(loadTiny({ family: "llama" }), { sequences: 2 });
  onTestFinished(() => engine.close());
  const ended: string[] = [];
  const ask = (name: string, tenant: string, maxTokens: number) =>
    engine
      .ask(someTokens(20, 90), { cache: { salt: "", tenant, read: true, save: true }, maxTokens })
      .then(() => ended.push(name));
  const long = Array.from({ length: 20 }, (_, index) => ask(`a${index}`, "a", 30));
  await Promise.all([ask("b", "b", 1), ask("c", "c", 1)]);
  // Those that had a sequence kept it; the next two sequences were the others'.
  expect(ended.indexOf("b")).toBeLessThanOrEqual(3);
  expect(ended.indexOf("c")).toBeLessThanOrEqual(3);
  await Promise.all(long);
  expect(ended).toHaveLength(22);
});
