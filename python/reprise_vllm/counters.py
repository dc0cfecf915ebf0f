"""What has happened, by name: the connector's own figures, beside those of its links."""

from __future__ import annotations

from collections import Counter


class Counters:
    """Names are made by their first use."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._told: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def taken(self) -> dict[str, int]:
        """The counts since the last call."""
        fresh = self._counts - self._told
        self._told = self._counts.copy()
        return dict(fresh)

    def all(self) -> dict[str, int]:
        return dict(self._counts)
