import { expect, test } from "vitest";
import { namesIn } from "../notes/notes.ts";
import { Random, seedOf } from "../notes/random.ts";
import { passage, plainText, questionAmong } from "./passage.ts";

test.each([1, 50, 333, 2048, 80_000, 600_000])("a passage of %d characters has exactly so many", (characters) => {
  expect(passage(characters, 7).text.length).toBe(characters);
  expect(plainText(characters, 7).length).toBe(characters);
});

test("the same seed gives the same passage, another seed another", () => {
  expect(passage(4000, 1)).toEqual(passage(4000, 1));
  expect(passage(4000, 1).text.slice(0, 200)).not.toBe(passage(4000, 2).text.slice(0, 200));
});

test("every question's answer stands in its note, and the note in the text", () => {
  const { text, questions } = passage(20_000, 3);
  expect(questions.length).toBeGreaterThan(100);
  for (const { answer, note } of questions) {
    expect(text).toContain(note);
    expect(note.toLowerCase()).toContain(lastWords(answer));
  }
});

test("a question about one of several passages names nothing that another speaks of", () => {
  const passages = Array.from({ length: 30 }, (_, index) => passage(8000, index));
  const rng = new Random(1);
  for (let i = 0; i < 100; i++) {
    const found = questionAmong(passages, passages, rng);
    const about = passages.filter(({ text }) => found !== undefined && text.includes(found.note));
    expect(about.length).toBe(1);
    const others = passages.filter((each) => each !== about[0]).map(({ text }) => namesIn(text));
    for (const name of namesIn(found?.note ?? "")) expect(others.some((names) => names.has(name))).toBe(false);
  }
});

test("two passages with the same notes leave nothing to ask", () => {
  const twice = [passage(2000, 1), passage(2000, 1)];
  expect(questionAmong(twice, twice, new Random(1))).toBeUndefined();
});

test("seeds of parts are whole, differ, and are none that the model learned from", () => {
  const seeds = Array.from({ length: 10_000 }, (_, index) => seedOf(42, `part ${index}`));
  expect(new Set(seeds).size).toBe(seeds.length);
  expect(seeds.every((seed) => Number.isSafeInteger(seed) && seed >= 2 ** 52)).toBe(true);
});

/** Answers turn a fact's words around ("At six on Mondays." of "On Mondays it closes at six."), but keep the value. */
function lastWords(answer: string): string {
  return answer.slice(0, -1).toLowerCase().split(" ").at(-1) ?? "";
}
