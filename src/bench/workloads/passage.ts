/**
 * Passages: text of an exact length, and questions whose answers stand in it.
 *
 * A passage is notes about invented places; what is missing to its length is filled with sentences about nothing. A
 * server's answer can thus be checked word by word, and a cache that mixes up two passages is found out.
 */
import { plainSentence, namesIn, sampleNotes } from "../notes/notes.ts";
import { Random } from "../notes/random.ts";
import type { TextScale } from "./workload.ts";

export interface PassageQuestion {
  readonly question: string;
  readonly answer: string;
  /** The note that answers it, as it stands in the text. */
  readonly note: string;
}

export interface Passage {
  readonly text: string;
  /** Questions with one certain answer. Empty when the passage is too short for a note. */
  readonly questions: readonly PassageQuestion[];
}

/** What is asked about a text too short for a note. */
export const OPEN_QUESTION = "What is this about?";

/** Another name than the note's is the one thing that the shipped model gets wrong at times, so it is not asked for. */
const ASKED_KINDS: readonly string[] = ["local", "spill", "override"];

/** Characters of a text of this many tokens. */
export function charactersOf(tokens: number, scale: TextScale): number {
  return Math.round(tokens * scale.charactersPerToken);
}

/** A passage of exactly `characters` characters. */
export function passage(characters: number, seed: number): Passage {
  const notes = sampleNotes({ characters, seed });
  if (notes.text.length > characters) return { text: plainText(characters, seed), questions: [] };

  const lines = notes.text.split("\n");
  const lineOf = new Map(lines.flatMap((line) => [...namesIn(line)].map((name) => [name, line])));
  const questions = notes.questions.flatMap(({ kind, question, answer }) => {
    const [name] = namesIn(question);
    const note = name === undefined ? undefined : lineOf.get(name);
    return note !== undefined && ASKED_KINDS.includes(kind) ? [{ question, answer, note }] : [];
  });
  const missing = characters - notes.text.length;
  const filler = missing === 0 ? "" : ` ${plainText(missing - 1, seed)}`;
  return { text: `${notes.text}${filler}`, questions };
}

/** Exactly `characters` characters of sentences that name no place; the last one may be cut. */
export function plainText(characters: number, seed: number): string {
  const rng = new Random(seed);
  const sentences: string[] = [];
  for (let size = 0; size <= characters;) {
    const sentence = plainSentence(rng);
    sentences.push(sentence);
    size += sentence.length + 1;
  }
  return sentences.join(" ").slice(0, characters);
}

/**
 * A question about one of the passages that stand together in a prompt, such that no other of them speaks of the same
 * place; undefined when there is none.
 *
 * @param about the passages whose notes may be asked about; `all` includes them.
 */
export function questionAmong(
  about: readonly Passage[],
  all: readonly Passage[],
  rng: Random,
): PassageQuestion | undefined {
  const namesOf = new Map(all.map((each) => [each, namesIn(each.text)]));
  for (const asked of rng.some(about, about.length)) {
    for (const question of rng.some(asked.questions, asked.questions.length)) {
      const names = [...namesIn(question.note)];
      const isUnique = all.every((each) => each === asked || names.every((name) => !namesOf.get(each)?.has(name)));
      if (isUnique) return question;
    }
  }
  return undefined;
}
