"""Writes golden.json, or with --check compares it with what notes.py makes now (exit code 1 when they differ)."""

import json
import sys

import notes

GOLDEN = notes.SHARED / "golden.json"
OTHER_TEXT = ["Shared tables are read by both languages.", "A paragraph of other text stands between two notes."]
SAMPLES = [(0, 600, 3, []), (1, 900, 4, OTHER_TEXT), (2**32 + 7, 1200, 10, []), (2**53 - 1, 1, 1, [])]


def sample(seed, characters, turns, distractors):
    text, questions = notes.sample_notes(notes.Random(seed), characters, distractors)
    messages, kinds = notes.sample_chat(notes.Random(seed), characters, turns, distractors)
    return {
        "seed": seed,
        "characters": characters,
        "turns": turns,
        "distractors": distractors,
        "notes": {"text": text, "questions": questions},
        "chat": {"messages": messages, "kinds": kinds},
    }


if __name__ == "__main__":
    golden = json.dumps([sample(*options) for options in SAMPLES], indent=1) + "\n"
    if "--check" not in sys.argv:
        GOLDEN.write_text(golden, encoding="utf-8")
    elif GOLDEN.read_text(encoding="utf-8") != golden:
        sys.exit("golden.json differs from what notes.py makes: run golden.py, and the TypeScript test")
