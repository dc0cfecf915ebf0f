"""Notes about invented places, and questions whose answers stand in them.

One generator in two languages: `src/bench/notes/notes.ts` draws the same numbers from the same tables in the same
order, so a seed gives the same text in both, byte for byte (`golden.json` holds samples that both test).

Kinds of question:
    local     one sentence holds the fact and names the place as the question does
    spill     the sentence says "it"; the place is named earlier in the note
    alias     the question uses the other of the place's two names
    override  a later correction replaces the fact
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

SHARED = Path(__file__).resolve().parents[2] / "src" / "bench" / "notes"  # what both languages read
TABLES = json.loads((SHARED / "tables.json").read_text(encoding="utf-8"))
ATTRIBUTES = list(TABLES["attributes"].values())
KINDS = ("local", "spill", "alias", "override")
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
U32 = 0xFFFFFFFF


class Question(NamedTuple):
    kind: str
    question: str
    answer: str


class Random:
    """sfc32, seeded with an integer below 2**53: small, fast, and equal in every language that has 32-bit integers."""

    __slots__ = ("a", "b", "c", "d")

    def __init__(self, seed):
        self.a, self.b, self.c, self.d = seed & U32, seed >> 32 & U32, 0x9E3779B9, 1
        for _ in range(12):
            self.below(1)

    def below(self, limit):
        """A whole number from 0 to limit - 1; limit is at most 2**21 (so that the product is exact in a double)."""
        a, b, c, d = self.a, self.b, self.c, self.d
        t = a + b + d & U32
        self.a = b ^ b >> 9
        self.b = c + (c << 3) & U32
        self.c = (c << 21 | c >> 11) + t & U32
        self.d = d + 1 & U32
        return t * limit >> 32

    def percent(self, chance):
        return self.below(100) < chance

    def pick(self, items):
        return items[self.below(len(items))]

    def some(self, items, count):
        """`count` of the items in random order, or all if there are fewer."""
        items = list(items)
        count = min(count, len(items))
        for i in range(count):
            j = i + self.below(len(items) - i)
            items[i], items[j] = items[j], items[i]
        return items[:count]


def sample_notes(rng, characters, distractors=()):
    """Notes of at most `characters` (one note at least) and every question that can be asked about them.

    Now and then one of the `distractors` (paragraphs of other text) stands among the notes.
    Returns (text, [Question]).
    """
    lines, questions, used, size = [], [], set(), 0
    while len(used) < len(TABLES["cities"]) * len(TABLES["kinds"]):
        asked = []
        if distractors and rng.percent(12):
            body = rng.pick(distractors)
        else:
            place = _unused(rng, used, "the {} {}", TABLES["cities"], TABLES["kinds"])
            codename = None
            if len(used) < 300 and rng.percent(20):
                codename = _unused(rng, used, "{} {}", TABLES["codeadj"], TABLES["codenoun"])
            body = _note(rng, place, codename, asked)
        line = f"Note {len(lines) + 1}. {body}"
        size += len(line) + 1
        if lines and size > characters:
            break
        lines.append(line)
        questions += asked
    return "\n".join(lines), questions


def sample_chat(rng, characters, turns, distractors=()):
    """A chat whose first user turn holds notes and a question; later turns ask more.

    Returns ([(role, content)], [kind of each question]).
    """
    text, questions = sample_notes(rng, characters, distractors)
    messages, kinds = [], []
    if rng.percent(50):
        messages.append(("system", rng.pick(TABLES["systems"])))
    for kind, question, answer in rng.some(questions, turns):
        messages.append(("user", f"Question: {question}" if kinds else ask(text, question)))
        messages.append(("assistant", answer))
        kinds.append(kind)
    return messages, kinds


def ask(text, question):
    """The user turn that gives the notes and asks about them."""
    return f"{text}\n\nQuestion: {question}"


def render(messages):
    """The chat as the model reads it; equal to the chat template in the GGUF."""
    return "".join(f"<|{role}|>\n{content}<|end|>\n" for role, content in messages)


def _note(rng, place, codename, questions):
    """One note: what it is about, then facts in random order and form. Appends the questions it answers."""
    header = rng.percent(60)
    lines = []
    if header:
        lines.append(rng.pick(TABLES["headers"]).format_map(_Values(rng, place)))
    if codename:
        values = _Values(rng, place, codename=codename, Codename=_capital(codename))
        lines.append(rng.pick(TABLES["alias"]).format_map(values))
    named = header or codename is not None

    for attribute in rng.some(ATTRIBUTES, 2 + rng.below(4)):
        it = named and rng.percent(50)
        name = codename if codename and rng.percent(30) else place
        asked = codename if codename and rng.percent(50) else place
        values = _Values(rng, name)
        fact = rng.pick(attribute["its" if it else "facts"]).format_map(values)
        answer = attribute["answer"].format_map(values)
        kind = "alias" if asked != (place if it else name) else "spill" if it else "local"
        if not it and rng.percent(8):
            old = _Values(rng, name, **{field: values[field] for field in ("thing", "day") if field in values})
            if attribute["answer"].format_map(old) != answer:
                lines.append(rng.pick(attribute["facts"]).format_map(old))
                fact = rng.pick(TABLES["corrections"]).format_map(_Values(rng, name, fact=fact))
                kind = "override"
        lines.append(fact)
        named = True
        values.update(s=asked, S=_capital(asked))
        question = rng.pick(attribute["ask"]).format_map(values)
        questions.append(Question(kind, _an(question), _capital(_an(answer)) + "."))
        if rng.percent(25):
            lines.append(rng.pick(TABLES["fillers"]).format_map(_Values(rng, place)))
    return _an(" ".join(lines))


class _Values(dict):
    """The fields of a template. A field is drawn when a template first asks for it, and then stays."""

    __slots__ = ("rng",)

    def __init__(self, rng, name, **fields):
        super().__init__(fields, s=name, S=_capital(name))
        self.rng = rng

    def __missing__(self, field):
        value = self[field] = _DRAW[field](self.rng)
        return value


def _from(table):
    items = TABLES[table]
    return lambda rng: items[rng.below(len(items))]


def _person(rng):
    return f"{rng.pick(TABLES['people'])} {rng.pick(TABLES['surnames'])}"


_DRAW = {
    "thing": _from("things"),
    "container": _from("containers"),
    "colour": _from("colours"),
    "animal": _from("animals"),
    "food": _from("foods"),
    "time": _from("times"),
    "day": _from("days"),
    "month": _from("months"),
    "person": _person,
    "person2": _person,
    "num": lambda rng: str(11 + rng.below(988)),
    "num4": lambda rng: str(1000 + rng.below(9000)),
    "code": lambda rng: f"{rng.pick(LETTERS)}{rng.pick(LETTERS)}{100 + rng.below(900)}",
    "year": lambda rng: str(1890 + rng.below(135)),
}


def _unused(rng, used, form, first, second):
    """A name made of two words that this set of notes has not used yet."""
    while True:
        name = form.format(rng.pick(first), rng.pick(second))
        if name not in used:
            used.add(name)
            return name


def _capital(text):
    return text[0].upper() + text[1:]


_A = re.compile(r"\b([Aa]) (?=[aeio])")


def _an(text):
    return _A.sub(r"\1n ", text)
