"""Greedy exact match on fresh notes, by kind of question.

One forward pass over prompt and expected answer tells it: greedy decoding gives the answer exactly when every token of
the answer is the likeliest after those before it.
"""

from collections import defaultdict

import torch
import torch.nn.functional as F
from stream import CHARACTERS_PER_TOKEN, PAD, notes

HELD_OUT = 1 << 40  # training seeds stay below 2**35


def questions_about(tokenizer, document_tokens, documents, per_kind=1):
    """[(kind, prompt tokens, answer tokens)]: up to `per_kind` questions of each kind about each document."""
    rows = []
    for number in range(documents):
        rng = notes.Random(HELD_OUT + document_tokens * 10_000 + number)
        text, questions = notes.sample_notes(rng, int(document_tokens * CHARACTERS_PER_TOKEN))
        for kind in notes.KINDS:
            for question in rng.some([q for q in questions if q.kind == kind], per_kind):
                messages = [("user", notes.ask(text, question.question))]
                prompt = tokenizer.encode(notes.render(messages) + "<|assistant|>\n").ids
                rows.append((kind, prompt, tokenizer.encode(question.answer + "<|end|>").ids))
    return rows


@torch.no_grad()
def exact_match(model, rows, device, rows_at_once):
    """{kind: (share right, questions)}"""
    right, asked = defaultdict(int), defaultdict(int)
    longest = max(len(prompt) + len(answer) for _, prompt, answer in rows)
    for first in range(0, len(rows), rows_at_once):
        batch = rows[first : first + rows_at_once]
        ids = torch.full((len(batch), longest), PAD, dtype=torch.long)
        for i, (_, prompt, answer) in enumerate(batch):
            ids[i, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            likeliest = F.linear(model(ids.to(device)), model.embed_tokens.weight).argmax(-1).cpu()
        for i, (kind, prompt, answer) in enumerate(batch):
            said = likeliest[i, len(prompt) - 1 : len(prompt) + len(answer) - 1].tolist()
            right[kind] += said == answer
            asked[kind] += 1
    return {kind: (round(right[kind] / asked[kind], 4), asked[kind]) for kind in notes.KINDS if asked[kind]}
