"""Endless training batches: chats about notes, some prose, and how their lengths grow as training goes on.

Retrieval appears sooner when it is first asked for over a few notes, so documents begin short:

    progress  0 ........ 0.15 ............. 0.60 ................... 1
    row       2,048      2,048              8,192 (one batch in six 2,048)
    notes     60-500     60-1,900           60-7,500 tokens
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "notes"))
import notes

END_OF_TEXT, ASSISTANT, END, PAD = 0, 3, 4, 5
SHORT_ROW, LONG_ROW = 2048, 8192
CHARACTERS_PER_TOKEN = 4.02
TOKENS_PER_TURN = 34
# What a token's loss counts for. Most of what notes say is drawn by lot and cannot be learned; answers can.
ANSWER_WEIGHT, CHAT_WEIGHT, PROSE_WEIGHT = 1.0, 0.05, 0.3


class Chats:
    """Turns seeds into rows of tokens with weights. One per worker process."""

    def __init__(self, data, seed):
        self.tokenizer = Tokenizer.from_file(str(Path(data) / "tokenizer.json"))
        self.prose = np.memmap(Path(data) / "prose.bin", dtype=np.uint16, mode="r")
        self.rng = notes.Random(seed)
        starts = (self.rng.below(1 << 20) for _ in range(400))
        self.paragraphs = [self._paragraph(start * len(self.prose) >> 20) for start in starts]

    def row(self, length, progress):
        """One row of `length` tokens and their weights, filled with as many chats as fit."""
        if self.rng.percent(12):
            return self._prose(length), np.full(length, PROSE_WEIGHT, np.float32)
        ids, weights, room = [], [], length
        while room > 200:
            chat, chat_weights = self.chat(self._document_tokens(room, progress), room)
            ids.append(chat[:room])
            weights.append(chat_weights[:room])
            room -= len(chat)
        if room > 0:
            ids.append(self._prose(room))
            weights.append(np.full(room, PROSE_WEIGHT, np.float32))
        return np.concatenate(ids), np.concatenate(weights)

    def chat(self, document_tokens, room):
        """One chat about some `document_tokens` of notes, with as many questions as fit `room` (or, at times, few)."""
        turns = max(1, min(80, (room - document_tokens) // TOKENS_PER_TURN))
        if self.rng.percent(20):
            turns = 1 + self.rng.below(min(turns, 10))
        distractors = self.paragraphs if self.rng.percent(30) else ()
        characters = int(document_tokens * CHARACTERS_PER_TOKEN)
        messages, _ = notes.sample_chat(self.rng, characters, turns, distractors)
        ids = np.array([*self.tokenizer.encode(notes.render(messages)).ids, END_OF_TEXT], dtype=np.uint16)
        return ids, answer_weights(ids)

    def _document_tokens(self, room, progress):
        most = min(500 if progress < 0.15 else 1900 if progress < 0.6 else 7500, room - 120)
        if most > 2500 and self.rng.percent(50):
            return 2500 + self.rng.below(most - 2500)
        least = 60
        return int(least * math.exp(self.rng.below(1000) / 1000 * math.log(max(most, 80) / least)))

    def _prose(self, length):
        start = self.rng.below(1 << 20) * (len(self.prose) - length) >> 20
        return np.array(self.prose[start : start + length])

    def _paragraph(self, start):
        """A piece of one prose paragraph, of at most some 600 characters and without line breaks."""
        tokens = self.prose[start : start + 400]
        begin = int(np.argmax(tokens == END_OF_TEXT)) + 1
        text = self.tokenizer.decode(tokens[begin:].tolist(), skip_special_tokens=False)
        return text.split("<|endoftext|>")[0][:600].strip() or "No text."


def answer_weights(ids):
    """Answers, with the <|end|> that closes them, weigh ANSWER_WEIGHT; all else in a chat weighs CHAT_WEIGHT."""
    weights = np.full(len(ids), CHAT_WEIGHT, np.float32)
    ends = np.flatnonzero(ids == END)
    for start in np.flatnonzero(ids == ASSISTANT):
        end = ends[np.searchsorted(ends, start)]
        weights[start + 2 : end + 1] = ANSWER_WEIGHT  # after <|assistant|> and its line break
    return weights


class Stream(torch.utils.data.IterableDataset):
    """Batches of some `batch_tokens` tokens: ids (int32) and weights (float32), each of shape [rows, length + 1].

    `progress` is a shared number from 0 to 1 that the trainer moves on; `lengths` are those of a short and a long row.
    """

    def __init__(self, data, batch_tokens, progress, seed, lengths=(SHORT_ROW, LONG_ROW)):
        self.data, self.batch_tokens, self.lengths = data, batch_tokens, lengths
        self.progress, self.seed = progress, seed

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        chats = Chats(self.data, self.seed * 1000 + (worker.id if worker else 0))
        short, long = self.lengths
        while True:
            progress = self.progress.value
            length = long if progress >= 0.6 and not chats.rng.percent(16) else short
            rows = [chats.row(length + 1, progress) for _ in range(max(1, self.batch_tokens // length))]
            ids, weights = (np.stack(column) for column in zip(*rows, strict=True))
            yield torch.from_numpy(ids.astype(np.int32)), torch.from_numpy(weights)
