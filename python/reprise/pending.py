"""Requests under way: what `CacheLink` hands out, and fills in as answers arrive.

Every one ends (`done`) by itself: by its answer, at its deadline, or with its connection. `failed` says that it ended
without its whole answer; what it holds by then (no hits, some chunks) is what may be used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reprise.protocol import LoadedChunk, ReservedChunk


@dataclass(slots=True, eq=False)
class Pending:
    """One request that waits for its answer."""

    #: Numbers it within the connection of `epoch`.
    id: int
    epoch: int
    #: time.monotonic() of its sending.
    sent_at: float
    #: time.monotonic() after which nobody waits for it any more.
    deadline: float
    #: Nothing more will come.
    done: bool = False
    #: It ended without its (whole) answer: late, refused, cancelled, or the cache is gone.
    failed: bool = False


@dataclass(slots=True, eq=False)
class PendingLookup(Pending):
    """Ends with how much of a text is stored."""

    #: Tokens from the start of the text whose KV is stored, counted token by token; 0 until `done`.
    hit_tokens: int = 0
    #: The same tokens by the tier they would come from.
    tokens_by_tier: Mapping[str, int] = field(default_factory=dict)
    #: Of `hit_tokens`, from the start, those that are faster to load than to compute: all, unless the cost was given.
    worth_tokens: int = 0


@dataclass(slots=True, eq=False)
class PendingLoad(Pending):
    """Fills with leased chunks, in order of their position."""

    #: The cache has said how much there is: the three below are known. Comes before the first chunk.
    found: bool = False
    hit_tokens: int = 0
    tokens_by_tier: Mapping[str, int] = field(default_factory=dict)
    #: As for a lookup; chunks come up to there.
    worth_tokens: int = 0
    #: Grows until `done`. The caller releases each lease, also those of a load that failed half-way.
    chunks: list[LoadedChunk] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class PendingReserve(Pending):
    """Ends with slots to write into."""

    #: Chunks of the text that nobody has stored or is storing, in order. The caller commits or abandons each.
    chunks: list[ReservedChunk] = field(default_factory=list)
    #: True when the pool had no room for some of the missing chunks.
    full: bool = False


@dataclass(slots=True, eq=False)
class PendingCommit(Pending):
    """Ends when the written chunks are visible."""


@dataclass(slots=True, eq=False)
class PendingStats(Pending):
    """Ends with the cache's figures."""

    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class PendingClear(Pending):
    """Ends when the cache has forgotten what was stored."""

    #: Bytes that became free.
    bytes_by_tier: Mapping[str, int] = field(default_factory=dict)
    #: Chunks that engines are reading or writing, and that go when they are done.
    chunks_in_use: int = 0


@dataclass(slots=True, eq=False)
class PendingPing(Pending):
    """Ends when the cache gives its sign of life."""
