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

test("requests come evenly at the rate asked for", () => {
  const due = ask(make(), { actors: 100 }).map(({ dueMs }) => dueMs);
  const first = due.sort((a, b) => a - b).slice(0, 200);
  expect(first).toEqual(Array.from({ length: 200 }, (_, request) => request * 500));
});

test("a user asks every N / QPS seconds, and there are N users at a time", () => {
  const requests = ask(make(), { actors: 60 });
  expect(requests.every(({ actor }) => actor.gapMs === 4000)).toBe(true);
  const inPeriod = requests.filter(({ dueMs }) => dueMs >= 12_000 && dueMs < 16_000);
  expect(inPeriod.length).toBe(8);
  expect(new Set(inPeriod.map(({ actor }) => actor)).size).toBe(8);
});

test("those there at the start have part of their rounds behind them; those who join have all before them", () => {
  const roundsOf = new Map<number, number>();
  const joined: number[] = [];
  for (const { request, dueMs } of ask(make(), { actors: 30 })) {
    const user = Number(/^user (\d+) round/.exec(request.id)?.[1]);
    roundsOf.set(user, (roundsOf.get(user) ?? 0) + 1);
    if (request.group === "round 1") joined.push(dueMs);
  }
  const rounds = [...roundsOf.values()];
  expect(rounds.slice(0, 8)).toEqual([3, 2, 1, 3, 2, 1, 3, 2]);
  expect(rounds.slice(8).every((count) => count === 3)).toBe(true);
  // After the start one user joins every 3 requests, more or less: 8 seats do not divide by 3.
  const later = joined.filter((ms) => ms >= 4000);
  const gaps = later.slice(1).map((ms, index) => ms - (later[index] ?? 0));
  expect(gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length).toBeCloseTo(1500, -3);
  expect(Math.max(...gaps)).toBeLessThanOrEqual(2000);
});

test("one round each is a new user every request", () => {
  const requests = ask(make({ "num-rounds": "1" }), { actors: 20 });
  expect(requests.map(({ request }) => request.group)).toEqual(Array.from({ length: 20 }, () => "round 1"));
  expect(requests.map(({ dueMs }) => dueMs)).toEqual(Array.from({ length: 20 }, (_, request) => request * 500));
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
