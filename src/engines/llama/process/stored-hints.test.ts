import { expect, test } from "vitest";
import { FakeCache } from "../../../../test/support/fake-cache.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import { greedy } from "../../../engine.ts";
import { silentLog } from "../../../log.ts";
import type { CacheSession, Lookup } from "../../../session.ts";
import type { EngineRequest } from "../messages.ts";
import { StoredHints } from "./stored-hints.ts";

function request(tokens: number, read = true): EngineRequest {
  const cache = { salt: "a", tenant: "b", read, save: true };
  return { id: 1, tokens: someTokens(tokens, 1), sampling: greedy, maxTokens: 8, stop: [], cache };
}

/** A cache of which only lookups are asked. */
function hintsOver(lookup: CacheSession["lookup"]): StoredHints {
  const cache = new FakeCache({ chunkTokens: 64, slotBytes: 0, slots: 0 });
  const session = { ...cache.session, lookup };
  return new StoredHints({ stored: () => ({ session, pool: cache.pool }), computeMsPerToken: () => 2, log: silentLog });
}

const answer = (hitTokens: number, worthTokens: number): Promise<Lookup> =>
  Promise.resolve({ segments: [], hitTokens, worthTokens });
const turn = () => new Promise((resolve) => setImmediate(resolve));

test("each is asked for once, in its own name, and what is worth loading counts", async () => {
  const asked: unknown[] = [];
  const hints = hintsOver((root, tokens, options) => {
    asked.push([root, tokens.length, options]);
    return answer(80, 70);
  });
  const one = request(100);
  hints.ask(one);
  hints.ask(one);
  expect(hints.of(one)).toBe(0);
  await turn();
  hints.ask(one);
  expect(hints.of(one)).toBe(70);
  const options = { deadlineMs: 1000, computeMsPerToken: 2 };
  expect(asked).toEqual([[{ salt: "a", tenant: "b", adapter: "" }, 100, options]]);
});

test("a text that is stored whole has its last token to compute", async () => {
  const hints = hintsOver(() => answer(100, 100));
  const one = request(100);
  hints.ask(one);
  await turn();
  expect(hints.of(one)).toBe(99);
});

test("errors, late answers, and who reads nothing are misses", async () => {
  let asked = 0;
  const failing = hintsOver(() => {
    asked += 1;
    return Promise.reject(new Error("away"));
  });
  const [one, silent] = [request(100), request(100, false)];
  for (const each of [one, silent, one]) failing.ask(each);
  await turn();
  expect([failing.of(one), failing.of(silent), asked]).toEqual([0, 0, 1]);

  const late: ((lookup: Lookup) => void)[] = [];
  const slow = hintsOver(() => new Promise((resolve) => late.push(resolve)));
  const [first, ...others] = Array.from({ length: 5 }, () => request(100));
  slow.ask(first!); // there are five
  while (late.length < 5) {
    for (const each of others) slow.ask(each);
    await turn(); // until the first one's answer is late, and the last can be asked for
  }
  late[0]!({ segments: [], hitTokens: 80, worthTokens: 80 });
  await turn();
  expect(slow.of(first!)).toBe(0); // as above
});

test("four are asked for at a time, and the next when one has answered", async () => {
  const answers: ((lookup: Lookup) => void)[] = [];
  const hints = hintsOver(() => new Promise((resolve) => answers.push(resolve)));
  const requests = Array.from({ length: 6 }, () => request(100));
  const askAll = () => requests.forEach((each) => hints.ask(each));
  askAll();
  askAll();
  expect(answers).toHaveLength(4);
  answers[1]!({ segments: [], hitTokens: 80, worthTokens: 80 });
  await turn();
  askAll();
  expect(answers).toHaveLength(5);
  expect(requests.map((each) => hints.of(each))).toEqual([0, 80, 0, 0, 0, 0]);
});

test("without a cache nobody is asked, and it is when there is one", async () => {
  const cache = new FakeCache({ chunkTokens: 64, slotBytes: 0, slots: 0 });
  const session = { ...cache.session, lookup: () => answer(50, 50) };
  let isThere = false;
  const stored = () => (isThere ? { session, pool: cache.pool } : undefined);
  const hints = new StoredHints({ stored, computeMsPerToken: () => 1, log: silentLog });
  const one = request(100);
  hints.ask(one);
  isThere = true;
  await turn();
  expect(hints.of(one)).toBe(0);
  hints.ask(one);
  await turn();
  expect(hints.of(one)).toBe(50);
});
