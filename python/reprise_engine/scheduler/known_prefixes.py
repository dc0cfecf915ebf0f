"""Texts that are known to be stored, by the hash that the engine gives to the block they end with.

It spares the cache the question whether a text that hits the GPU's own prefix cache is stored as well. What it says
may be outdated (the cache has evicted the text since): then a save is left out, which costs a later miss and nothing
else; after `seconds` it is asked again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class KnownPrefixes:
    def __init__(
        self, *, entries: int = 65_536, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries = entries
        self._seconds = seconds
        self._clock = clock
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, block_hash: bytes) -> None:
        self._until.pop(block_hash, None)
        self._until[block_hash] = self._clock() + self._seconds
        if len(self._until) > self._entries:
            self._until.popitem(last=False)

    def has(self, block_hash: bytes) -> bool:
        until = self._until.get(block_hash)
        return until is not None and self._clock() < until

    def clear(self) -> None:
        """The cache is another one now."""
        self._until.clear()
