import { expect, onTestFinished, test } from "vitest";
import { FakeCache } from "../../../../test/support/fake-cache.ts";
import { Rig, chunkTokens, loadTiny } from "../../../../test/support/scheduler-rig.ts";
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

test("known texts come before new ones, also where only the cache knows them, and new ones are not starved", async () => {
  const model = loadTiny({ family: "llama" });
  const before = new Rig(model);
  onTestFinished(() => before.close());
  const known = Array.from({ length: 6 }, (_, index) => someTokens(300, 200 + index));
  for (const prompt of known) await before.ask(prompt, { maxTokens: 1 });
  await before.settled();

  const engine = new Rig(model, { sequences: 1, cache: before.cache });
  onTestFinished(() => engine.close());
  const ended: string[] = [];
  const ask = (name: string, prompt: Uint32Array, maxTokens = 1) =>
    engine.ask(prompt, { maxTokens }).then(() => ended.push(name));
  const all = [ask("running", someTokens(20, 300), 100)];
  for (const name of ["new a", "new b"]) all.push(ask(name, someTokens(200, 301 + all.length)));
  for (const [index, prompt] of known.entries()) all.push(ask(`known ${index}`, prompt));
  await Promise.all(all);
  expect(ended.join()).toBe("running,known 0,known 1,new a,known 2,known 3,known 4,new b,known 5"); // a new one in four
});

test("a cache that does not answer those who wait holds nobody up: they are served in the order in which they came", async () => {
  const engine = new Rig(loadTiny({ family: "llama" }), { sequences: 1 });
  onTestFinished(() => engine.close());
  const ended: number[] = [];
  const ask = (index: number, maxTokens = 1) =>
    engine.ask(someTokens(100, 400 + index), { maxTokens }).then(() => ended.push(index));
  const first = ask(0, 20);
  engine.cache.faults.hang = "lookup";
  const others = [1, 2, 3].map((index) => ask(index));
  await Promise.all([first, ...others]); // their own lookups are given up
  expect(ended).toEqual([0, 1, 2, 3]);
});

test("who leaves may stop what is read for it alone, and nothing in which others' tokens are", async () => {
  const model = loadTiny({ family: "llama" });
  for (const layout of ["unified", "streams"] as const) {
    const engine = new Rig(model, { sequences: 3, layout });
    onTestFinished(() => engine.close());
    const ask = (length: number) => engine.ask(someTokens(length, length), { maxTokens: 9 });
    await Promise.all([ask(600), ask(700), ask(800)]);
    // In one store a step of several prompts is one batch, and so is one with an answer's tokens in it.
    expect(new Set(engine.decodedFor)).toEqual(new Set(layout === "streams" ? [1, 2, 3, undefined] : [1, undefined]));
    await ask(900);
    expect(engine.decodedFor.slice(-10)).toEqual([4, 4, ...Array<undefined>(8).fill(undefined)]);
  }
});

test("an idle conversation stays for its next turn, which waits, when a new text could have another sequence", async () => {
  const model = loadTiny({ family: "llama" });
  const cache = new FakeCache({ chunkTokens, slotBytes: 0, slots: 0 });
  const engine = new Rig(model, { sequences: 2, layout: "streams", cache });
  onTestFinished(() => engine.close());
  const chat = someTokens(300, 500);
  await engine.ask(chat, { maxTokens: 1 }); // the least recent
  await engine.ask(someTokens(300, 501), { maxTokens: 1 });
  await engine.settled();
  // Of one tenant, whose turn it is, and of another, whose request waits behind it.
  const other = { salt: "", tenant: "a", read: true, save: true };
  const running = engine.ask(someTokens(100, 502), { cache: other, maxTokens: 1 });
  const next = engine.ask(Uint32Array.from([...chat, ...someTokens(20, 503)]), { maxTokens: 1 });
  await running;
  expect((await next).report).toMatchObject({ computedTokens: 20, reused: { resident: 300 } });
});
