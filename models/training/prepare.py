"""prepare.py PROSE.txt OUT: trains the 8,192-entry byte-level BPE tokenizer, packs the prose into OUT/prose.bin (u16).

Writes OUT/tokenizer.json as well. Deterministic for a given prose file.
"""

import random
import sys
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "notes"))
import notes

SPECIAL = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"]
VOCABULARY = 8192
# Qwen2's pre-tokenizer, which llama.cpp knows as "qwen2". Every digit is a token of its own, so that the model copies
# numbers digit by digit.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def main(prose, out):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paragraphs = Path(prose).read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(paragraphs)
    tokenizer = train_tokenizer(paragraphs)
    tokenizer.save(str(out / "tokenizer.json"))

    ids = []
    for encoding in tokenizer.encode_batch(paragraphs):
        ids += encoding.ids
        ids.append(0)
    np.array(ids, dtype=np.uint16).tofile(out / "prose.bin")
    characters = sum(map(len, paragraphs))
    print(f"{len(ids) / 1e6:.1f} M tokens of {characters / len(ids):.2f} characters")


def train_tokenizer(paragraphs):
    """A byte-level BPE tokenizer over prose and notes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tokenizer_text(paragraphs), trainer)
    return tokenizer


def tokenizer_text(paragraphs):
    yield from paragraphs[:90_000]
    rng = notes.Random(7)
    for _ in range(1500):
        yield notes.render(notes.sample_chat(rng, 3200, 12)[0])


if __name__ == "__main__":
    main(*sys.argv[1:3])
