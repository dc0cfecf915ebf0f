/** What a request may say about the tokens of its answer, over a tiny model whose greedy answer is known first. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { Rig, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import { greedy } from "../../../engine.ts";

let rig: Rig;
const prompt = someTokens(40, 9);
/** What follows the prompt when nothing is asked for. */
let plain: readonly number[];

beforeAll(async () => {
  rig = new Rig(loadTiny({ family: "llama" }));
  plain = (await rig.ask(prompt, { maxTokens: 6 })).tokens;
});
afterAll(() => rig.close());

test("an answer ends before a stop token, as before the model's own end", async () => {
  // Drawn, since this model's greedy answers repeat one token.
  const sampling = { ...greedy, temperature: 1, seed: 5 };
  const drawn = (await rig.ask(prompt, { maxTokens: 6, sampling })).tokens;
  const stop = drawn[3]!;
  const { tokens, events } = await rig.ask(prompt, { maxTokens: 6, sampling, stopTokens: [stop] });
  expect(tokens).toEqual(drawn.slice(0, drawn.indexOf(stop)));
  expect(tokens.length).toBeGreaterThan(0);
  expect(events.at(-1)).toEqual({ kind: "end", reason: "stop", completionTokens: tokens.length });
});

test("a token that is to stop the answer may come where the model's own ends may not", async () => {
  const [end] = rig.model.endTokens;
  const logitBias = [[end!, 100]] as const;
  const asked = { maxTokens: 6, ignoreEnd: true, sampling: { ...greedy, logitBias } };
  expect((await rig.ask(prompt, asked)).tokens).toHaveLength(6);
  expect((await rig.ask(prompt, { ...asked, stopTokens: [end!] })).tokens).toHaveLength(0);
});

test("biases favour tokens, and forbid them", async () => {
  const favoured = { ...greedy, logitBias: [[123, 100]] as const };
  expect((await rig.ask(prompt, { maxTokens: 4, sampling: favoured })).tokens).toEqual([123, 123, 123, 123]);
  const forbidden = { ...greedy, logitBias: [[plain[0]!, -Infinity]] as const };
  expect((await rig.ask(prompt, { maxTokens: 6, sampling: forbidden })).tokens).not.toContain(plain[0]);
});

test("nothing ends an answer before it has as many tokens as it must: not the model, a stop token or a stop text", async () => {
  const [end] = rig.model.endTokens;
  const ending = { ...greedy, logitBias: [[end!, 100]] as const };
  const asked = { maxTokens: 6, ignoreEnd: false, sampling: ending };
  expect((await rig.ask(prompt, asked)).tokens).toHaveLength(0);
  expect((await rig.ask(prompt, { ...asked, minTokens: 3 })).tokens).toHaveLength(3);

  const stopTokens = [...plain];
  expect((await rig.ask(prompt, { maxTokens: 6, stopTokens })).tokens).toHaveLength(0);
  expect((await rig.ask(prompt, { maxTokens: 6, stopTokens, minTokens: 2 })).tokens.length).toBeGreaterThanOrEqual(2);
});

test("tokens that may not come yet keep the log-probability that the model gave them", async () => {
  const stop = plain[0]!;
  const { events } = await rig.ask(prompt, { maxTokens: 1, stopTokens: [stop], minTokens: 1, logprobs: 2 });
  const [drawn] = events.flatMap((event) => (event.kind === "text" ? (event.logprobs ?? []) : []));
  expect(drawn?.token).not.toBe(stop);
  expect(drawn?.top[0]?.token).toBe(stop);
  expect(drawn?.top[0]?.logprob).toBeGreaterThan(drawn?.logprob ?? 0);
});
