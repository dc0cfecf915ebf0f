import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { sampleChat, sampleNotes } from "./notes.ts";

interface Sample {
  readonly seed: number;
  readonly characters: number;
  readonly turns: number;
  readonly distractors: readonly string[];
  readonly notes: { readonly text: string; readonly questions: readonly (readonly [string, string, string])[] };
  readonly chat: { readonly messages: readonly (readonly [string, string])[]; readonly kinds: readonly string[] };
}

// Written by models/notes/golden.py from the Python twin, so its shape is known.
const golden = JSON.parse(readFileSync(new URL("golden.json", import.meta.url), "utf8")) as readonly Sample[];

test.each(golden)("seed $seed gives what the Python twin gave", ({ notes, chat, ...options }) => {
  const ours = sampleNotes(options);
  expect(ours.text).toBe(notes.text);
  expect(ours.questions.map((q) => [q.kind, q.question, q.answer])).toEqual(notes.questions);

  const talk = sampleChat(options);
  expect(talk.messages.map((m) => [m.role, m.content])).toEqual(chat.messages);
  expect(talk.kinds).toEqual(chat.kinds);
});

test("notes keep to the length asked for", () => {
  for (let seed = 0; seed < 50; seed++) {
    const { text } = sampleNotes({ seed, characters: 3000 });
    expect(text.length).toBeLessThanOrEqual(3000);
    expect(text.length).toBeGreaterThan(2200);
  }
});

test("no two questions about the same notes are equal, so each has one answer", () => {
  for (let seed = 0; seed < 20; seed++) {
    const asked = sampleNotes({ seed, tokens: 6000 }).questions.map((q) => q.question);
    expect(new Set(asked).size).toBe(asked.length);
  }
});

test("the notes end when the places run out, and every place has one note", () => {
  const { text, questions } = sampleNotes({ seed: 3, characters: 10_000_000 });
  expect(text.split("\n").length).toBeGreaterThan(1200);
  expect(questions.length).toBeGreaterThan(4000);
});

test("every kind of question occurs", () => {
  const kinds = new Set(sampleNotes({ seed: 1, tokens: 6000 }).questions.map((q) => q.kind));
  expect([...kinds].sort()).toEqual(["alias", "local", "override", "spill"]);
});
