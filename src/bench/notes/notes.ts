/**
 * Notes about invented places, and questions whose answers stand in them.
 *
 * One generator in two languages: `models/notes/notes.py` draws the same numbers from the same tables in the same
 * order, so a seed gives the same text in both, byte for byte (`golden.json` holds samples that both test).
 */
import { Random } from "./random.ts";
import tables from "./tables.json" with { type: "json" };

/**
 * What a question needs of the notes:
 * - `local`: one sentence holds the fact and names the place as the question does
 * - `spill`: the sentence says "it"; the place is named earlier in the note
 * - `alias`: the question uses the other of the place's two names
 * - `override`: a later correction replaces the fact
 */
export type Kind = "local" | "spill" | "alias" | "override";

export interface Question {
  readonly kind: Kind;
  readonly question: string;
  /** Exactly what the model should say. */
  readonly answer: string;
}

export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** How much to write. Tokens are an estimate, good to some 5 % for the model that ships with Reprise. */
export type Length = { readonly characters: number } | { readonly tokens: number };

export interface Notes {
  readonly text: string;
  readonly questions: readonly Question[];
}

export type NotesOptions = Length & {
  /** A whole number from 0 to 2^53 - 1; the same seed gives the same notes. */
  readonly seed: number;
  /** Paragraphs of other text, of which one stands among the notes now and then. */
  readonly distractors?: readonly string[];
};

/** Notes of at most the given length (one note at least) and every question that can be asked about them. */
export function sampleNotes(options: NotesOptions): Notes {
  return writeNotes(new Random(options.seed), charactersOf(options), options.distractors ?? []);
}

/**
 * A chat whose first user turn holds notes and a question; later turns ask more, each followed by its answer.
 *
 * Half of the chats begin with a system prompt. There are fewer turns than asked for when the notes answer fewer.
 */
export function sampleChat(options: NotesOptions & { readonly turns: number }): {
  readonly messages: readonly Message[];
  readonly kinds: readonly Kind[];
} {
  const rng = new Random(options.seed);
  const notes = writeNotes(rng, charactersOf(options), options.distractors ?? []);
  const messages: Message[] = [];
  const kinds: Kind[] = [];
  if (rng.percent(50)) messages.push({ role: "system", content: rng.pick(tables.systems) });
  for (const { kind, question, answer } of rng.some(notes.questions, options.turns)) {
    messages.push({ role: "user", content: kinds.length > 0 ? `Question: ${question}` : ask(notes.text, question) });
    messages.push({ role: "assistant", content: answer });
    kinds.push(kind);
  }
  return { messages, kinds };
}

/** The user turn that gives the notes and asks about them. */
export function ask(notes: string, question: string): string {
  return `${notes}\n\nQuestion: ${question}`;
}

/**
 * A sentence like those of notes (as many digits, as many tokens), about a house of which no note speaks and for which no
 * question asks.
 */
export function plainSentence(rng: Random): string {
  const values = new Values(rng, `the ${rng.pick(tables.surnames)} house`);
  const facts = rng.pick(Object.values(tables.attributes)).facts;
  return an(values.fill(rng.pick(rng.percent(10) ? tables.fillers : facts)));
}

/**
 * The names that a text calls places by ("oslo bakery", "quiet river"), in small letters, without "the". Two texts that
 * share none can stand side by side without contradicting each other.
 */
export function namesIn(text: string): Set<string> {
  return new Set(text.match(NAME)?.map((name) => name.toLowerCase()));
}

/** Measured with the shipped tokenizer over 200 documents of notes. */
export const CHARACTERS_PER_TOKEN = 4;

function charactersOf(length: Length): number {
  return "characters" in length ? length.characters : Math.floor(length.tokens * CHARACTERS_PER_TOKEN);
}

function writeNotes(rng: Random, characters: number, distractors: readonly string[]): Notes {
  const lines: string[] = [];
  const questions: Question[] = [];
  const used = new Set<string>();
  let size = 0;
  while (used.size < tables.cities.length * tables.kinds.length) {
    const asked: Question[] = [];
    let body: string;
    if (distractors.length > 0 && rng.percent(12)) {
      body = rng.pick(distractors);
    } else {
      const place = unused(rng, used, "the ", tables.cities, tables.kinds);
      const named = used.size < 300 && rng.percent(20);
      const codename = named ? unused(rng, used, "", tables.codeadj, tables.codenoun) : undefined;
      body = writeNote(rng, place, codename, asked);
    }
    const line = `Note ${lines.length + 1}. ${body}`;
    size += line.length + 1;
    if (lines.length > 0 && size > characters) break;
    lines.push(line);
    questions.push(...asked);
  }
  return { text: lines.join("\n"), questions };
}

/** One note: what it is about, then facts in random order and form. Appends the questions it answers. */
function writeNote(rng: Random, place: string, codename: string | undefined, questions: Question[]): string {
  const header = rng.percent(60);
  const lines: string[] = [];
  if (header) lines.push(new Values(rng, place).fill(rng.pick(tables.headers)));
  if (codename !== undefined) {
    const names = { codename, Codename: capital(codename) };
    lines.push(new Values(rng, place, names).fill(rng.pick(tables.alias)));
  }
  let named = header || codename !== undefined;

  for (const attribute of rng.some(Object.values(tables.attributes), 2 + rng.below(4))) {
    const it = named && rng.percent(50);
    const name = codename !== undefined && rng.percent(30) ? codename : place;
    const asked = codename !== undefined && rng.percent(50) ? codename : place;
    const values = new Values(rng, name);
    let fact = values.fill(rng.pick(it ? attribute.its : attribute.facts));
    const answer = values.fill(attribute.answer);
    let kind: Kind = asked !== (it ? place : name) ? "alias" : it ? "spill" : "local";
    if (!it && rng.percent(8)) {
      const old = new Values(rng, name, values.only(["thing", "day"]));
      if (old.fill(attribute.answer) !== answer) {
        lines.push(old.fill(rng.pick(attribute.facts)));
        fact = new Values(rng, name, { fact }).fill(rng.pick(tables.corrections));
        kind = "override";
      }
    }
    lines.push(fact);
    named = true;
    const question = values.callIt(asked).fill(rng.pick(attribute.ask));
    questions.push({ kind, question: an(question), answer: `${capital(an(answer))}.` });
    if (rng.percent(25)) lines.push(new Values(rng, place).fill(rng.pick(tables.fillers)));
  }
  return an(lines.join(" "));
}

const draw: Readonly<Record<string, (rng: Random) => string>> = {
  thing: (rng) => rng.pick(tables.things),
  container: (rng) => rng.pick(tables.containers),
  colour: (rng) => rng.pick(tables.colours),
  animal: (rng) => rng.pick(tables.animals),
  food: (rng) => rng.pick(tables.foods),
  time: (rng) => rng.pick(tables.times),
  day: (rng) => rng.pick(tables.days),
  month: (rng) => rng.pick(tables.months),
  person: (rng) => `${rng.pick(tables.people)} ${rng.pick(tables.surnames)}`,
  person2: (rng) => `${rng.pick(tables.people)} ${rng.pick(tables.surnames)}`,
  num: (rng) => String(11 + rng.below(988)),
  num4: (rng) => String(1000 + rng.below(9000)),
  code: (rng) => `${rng.pick(LETTERS)}${rng.pick(LETTERS)}${100 + rng.below(900)}`,
  year: (rng) => String(1890 + rng.below(135)),
};

const NAME = new RegExp(
  [
    [tables.cities, tables.kinds],
    [tables.codeadj, tables.codenoun],
  ]
    .map((words) => words.map((each) => `(?:${each.join("|")})`).join(" "))
    .join("|"),
  "gi",
);

const LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ".split("");

/** The fields of a template. A field is drawn when a template first asks for it, and then stays. */
class Values {
  readonly #rng: Random;
  readonly #fields: Map<string, string>;

  constructor(rng: Random, name: string, fields: Readonly<Record<string, string>> = {}) {
    this.#rng = rng;
    this.#fields = new Map(Object.entries(fields));
    this.callIt(name);
  }

  /** Sets the name that `{s}` and `{S}` stand for. */
  callIt(name: string): this {
    this.#fields.set("s", name).set("S", capital(name));
    return this;
  }

  only(names: readonly string[]): Record<string, string> {
    return Object.fromEntries([...this.#fields].filter(([name]) => names.includes(name)));
  }

  fill(template: string): string {
    return template.replace(/\{(\w+)\}/g, (_, field: string) => {
      const known = this.#fields.get(field);
      if (known !== undefined) return known;
      const drawn = draw[field];
      if (drawn === undefined) throw new Error(`tables.json: no such field: {${field}} in "${template}"`);
      const value = drawn(this.#rng);
      this.#fields.set(field, value);
      return value;
    });
  }
}

/** Two words that this set of notes has not used together yet. */
function unused(
  rng: Random,
  used: Set<string>,
  article: string,
  first: readonly string[],
  second: readonly string[],
): string {
  for (;;) {
    const name = `${article}${rng.pick(first)} ${rng.pick(second)}`;
    if (used.has(name)) continue;
    used.add(name);
    return name;
  }
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function an(text: string): string {
  return text.replace(/\b([Aa]) (?=[aeio])/g, "$1n ");
}
