"""Texts as token numbers: the same seed gives the same text in every run; different seeds share no block."""

from __future__ import annotations

import random


def tokens(seed: object, count: int, *, vocabulary: int = 512) -> list[int]:
    """`count` random tokens. The seed is anything with a stable text form."""
    return random.Random(str(seed)).choices(range(10, vocabulary - 10), k=count)
