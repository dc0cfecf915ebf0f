import { expect, test } from "vitest";
import { agent } from "./agent.ts";
import { ask, scale, sharedPrefix } from "./fake-runner.ts";

const options = { agents: "3", turns: "4", "system-prompt": "2000", "tool-result": "300" };
const requests = ask(agent.create(options, scale), { answer: "Done." });
const systemOf = (request: (typeof requests)[number] | undefined) => request?.messages[0]?.content ?? "";

test("the system prompt has its length, holds the tools, and changes near its top every request", () => {
  expect(new Set(requests.map(systemOf)).size).toBe(12);
  for (const request of requests) {
    expect(systemOf(request).length).toBe(8000);
    expect(systemOf(request)).toContain("Tool search_notes takes words, limit.");
  }
  for (const request of requests.slice(1)) {
    expect(sharedPrefix(systemOf(requests[0]), systemOf(request))).toBeLessThan(100);
  }
});

test("all but one line of it is the same", () => {
  const rest = requests.map((request) => systemOf(request).split("\n").toSpliced(1, 1).join("\n"));
  expect(new Set(rest).size).toBe(1);
});

test("the history grows by a tool's result and an answer every turn", () => {
  const turns = requests.slice(0, 4);
  expect(turns.map(({ request }) => request.group)).toEqual(["turn 1", "turn 2", "turn 3", "turn 4"]);
  for (const [index, { messages }] of turns.entries()) {
    expect(messages.length).toBe(2 + 2 * index);
    expect(messages.at(-1)?.content.indexOf("\n\nQuestion: ")).toBe(1200);
    const before = turns[index - 1]?.messages.slice(1);
    if (before === undefined) continue;
    expect(messages.slice(1, 1 + before.length)).toEqual(before);
    expect(messages.at(-2)).toEqual({ role: "assistant", content: "Done." });
  }
});

test("all agents are at work at the same time, each on something of its own", () => {
  expect(agent.create(options, scale).concurrency).toBe(3);
  expect(requests.every(({ dueMs }) => dueMs === 0)).toBe(true);
  const first = requests
    .filter(({ request }) => request.group === "turn 1")
    .map(({ messages }) => messages[1]?.content);
  expect(new Set(first).size).toBe(3);
});
