import { expect, test } from "vitest";
import { ask, scale, sharedPrefix } from "./fake-runner.ts";
import { multiRoundQa } from "./multi-round-qa.ts";

const options = {
  "num-users": "8",
  "num-rounds": "3",
  qps: "2",
  "shared-system-prompt": "500",
  "user-history-prompt": "3000",
};
const make = (more: Readonly<Record<string, string>> = {}) => multiRoundQa.create({ ...options, ...more }, scale);

test("users join and ask as in the original: the picture at the top of the workload", () => {
  const picture = make({ "num-users": "2", "num-rounds": "3", qps: "1" });
  const due = ask(picture, { actors: 4 }).map(({ request, dueMs }) => [request.id, dueMs / 1000]);
  expect(due).toEqual([
    ["user 3 round 1", 0],
    ["user 3 round 2", 2],
    ["user 3 round 3", 4],
    ["user 4 round 1", 2],
    ["user 4 round 2", 4],
    ["user 4 round 3", 6],
    ["user 2 round 1", 2],
    ["user 5 round 1", 4],
    ["user 5 round 2", 6],
    ["user 5 round 3", 8],
  ]);
});

test("a user asks every N / QPS seconds; the rate offered is R / (R - 1) times the one asked for", () => {
  const requests = ask(make(), { actors: 500 });
  expect(requests.every(({ actor }) => actor.gapMs === 4000)).toBe(true);
  const inTime = requests.filter(({ dueMs }) => dueMs >= 40_000 && dueMs < 280_000);
  expect(inTime.length / 240).toBeCloseTo((2 * 3) / (3 - 1), 1);
});

test("gaps are whole tenths of a second, so that a last question comes before the first of who joins N later", () => {
  const asked = ask(make({ "num-users": "5", "num-rounds": "4", qps: "0.8" }), { actors: 30 });
  const due = new Map(asked.map(({ request, dueMs }) => [request.id, dueMs]));
  expect(asked.every(({ actor }) => actor.gapMs === 6300)).toBe(true);
  expect(due.get("user 6 round 4")).toBe(18_900);
  expect(due.get("user 11 round 1")).toBe(19_000);
});

test("actors come in the order of their first requests", () => {
  const starts = ask(make({ "num-users": "7", "num-rounds": "6" }), { actors: 40 })
    .filter(({ request }) => request.group === "round 1")
    .map(({ actor }) => actor.startMs);
  expect(starts).toEqual(starts.toSorted((a, b) => a - b));
});

test("those there at the start have rounds behind them, spread over all; those who join have all before them", () => {
  const roundsOf = new Map<number, number>();
  for (const { request } of ask(make({ "num-users": "8", "num-rounds": "5" }), { actors: 20 })) {
    const user = Number(/^user (\d+) round/.exec(request.id)?.[1]);
    roundsOf.set(user, (roundsOf.get(user) ?? 0) + 1);
  }
  expect([...roundsOf.keys()].filter((user) => user <= 8).toSorted((a, b) => a - b)).toEqual([2, 3, 4, 5, 6, 7, 8]);
  expect([2, 3, 4, 5, 6, 7, 8].map((user) => roundsOf.get(user))).toEqual([1, 1, 2, 2, 3, 3, 4]);
  expect([...roundsOf].every(([user, rounds]) => user <= 8 || rounds === 5)).toBe(true);
});

test("one round each is a new user every request", () => {
  const requests = ask(make({ "num-rounds": "1" }), { actors: 20 });
  expect(requests.map(({ request }) => request.group)).toEqual(Array.from({ length: 20 }, () => "round 1"));
  expect(requests.map(({ dueMs }) => dueMs)).toEqual(Array.from({ length: 20 }, (_, request) => request * 500));
});

test("the original's text, letter for letter", () => {
  const hi = make({ text: "hi", "shared-system-prompt": "2", "user-history-prompt": "3", "num-users": "1" });
  const [first, second] = ask(hi, { actors: 1, answer: "Once." });
  const question = (number: number) =>
    `Here's question #${number}: can you tell me a new long story with a happy ending?`;
  const opening = "Hi, here's some system prompt: hi hi.For user 2, here are some other context: hi hi hi.";
  expect(first?.messages).toEqual([{ role: "user", content: opening + question(1) }]);
  expect(second?.messages.slice(1)).toEqual([
    { role: "assistant", content: "Once." },
    { role: "user", content: question(2) },
  ]);
});

test("system prompt and history have their lengths; all share the one, nobody the other", () => {
  const requests = ask(make(), { actors: 9 }).filter(({ request }) => request.group === "round 1");
  const [one, two] = requests;
  expect(one?.messages.map(({ role }) => role)).toEqual(["system", "user"]);
  for (const { messages } of requests) {
    expect(messages[0]?.content.length).toBe(2000);
    expect(messages[1]?.content.split("\n\nQuestion: ")[0]?.length).toBe(12_000);
  }
  const shared = sharedPrefix(one?.prompt ?? "", two?.prompt ?? "");
  expect(shared).toBeGreaterThanOrEqual(2000);
  expect(shared).toBeLessThan(2000 + 50);
});

test("each round continues the one before, with the answer that was given", () => {
  const rounds = ask(make(), { actors: 1, answer: "What was said." });
  expect(rounds.map(({ request }) => request.group)).toEqual(["round 1", "round 2", "round 3"]);
  for (const [index, { messages }] of rounds.slice(1).entries()) {
    const before = rounds[index]?.messages ?? [];
    expect(messages.slice(0, before.length)).toEqual(before);
    expect(messages[before.length]).toEqual({ role: "assistant", content: "What was said." });
    expect(messages.length).toBe(before.length + 2);
  }
});

test("a checked user's questions are all checked, each about the user's own history", () => {
  const requests = ask(make({ "checked-share": "0.5" }), { actors: 20 });
  const checked = requests.filter(({ request }) => request.expected !== undefined);
  const users = new Set(checked.map(({ actor }) => actor));
  expect(users.size).toBe(10);
  expect(requests.filter(({ actor }) => users.has(actor)).length).toBe(checked.length);
});

test("a history too short for a note is asked about all the same", () => {
  const [first] = ask(make({ "user-history-prompt": "0", "shared-system-prompt": "0" }), { actors: 1 });
  expect(first?.messages).toEqual([{ role: "user", content: "\n\nQuestion: What is this about?" }]);
});
