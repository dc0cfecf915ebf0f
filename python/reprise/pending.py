"""Requests under way: what `CacheLink` hands out, and fills in as answers arrive.

Every one ends (`done`) by itself: by its answer, at its deadline, or with its connection. `failed` says that it ended
without its whole answer; what it holds by then (no hits, some parts) is what may be used.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reprise.rows import LoadedPart, ReservedPart, Segment


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
class _PendingSearch(Pending):
    """What is known of a text that is looked for."""

    #: What is stored of the text, in its order.
    segments: Sequence[Segment] = ()
    #: Tokens of the stored prefix: where the exact segments that follow each other from the text's start on end.
    hit_tokens: int = 0
    #: Of `hit_tokens`, from the start, those that are faster to load than to compute: all, unless the cost was given.
    worth_tokens: int = 0
    #: Others (shared stores) may have more than this host. A lookup asks them, and is done when they have answered;
    #: until then it tells what is known without them. A load that is `only_ready` does not ask.
    more: bool = False

    @property
    def tokens_by_tier(self) -> Mapping[str, int]:
        """The tokens of the stored prefix by the tier they would come from."""
        tokens: Counter[str] = Counter()
        for segment in self.segments:
            if segment.to <= self.hit_tokens:
                tokens[segment.tier] += segment.to - segment.from_token
        return tokens

    def tell(self, segments: Sequence[Segment], worth_tokens: int, more: bool) -> None:
        """Fills in the cache's answer, or a further one."""
        self.more |= more
        self.hit_tokens = 0
        self.segments = segments
        for segment in segments:
            if segment.kind != "exact" or segment.from_token != self.hit_tokens:
                break
            self.hit_tokens = segment.to
        self.worth_tokens = min(worth_tokens, self.hit_tokens)


@dataclass(slots=True, eq=False)
class PendingLookup(_PendingSearch):
    """Ends with how much of a text is stored."""


@dataclass(slots=True, eq=False)
class PendingLoad(_PendingSearch):
    """Fills with leased parts of chunks, in order of their position; they come up to `worth_tokens`.

    Of rows those of all chunks come, of snapshots those of the last chunk only: where there are any, what came is of
    use only with them.
    """

    #: The cache has said how much there is. Comes before the first part.
    found: bool = False
    #: Grows until `done`. The caller releases each lease, also those of a load that failed half-way.
    parts: list[LoadedPart] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class PendingReserve(Pending):
    """Ends with slots to write into."""

    #: What of the text nobody has stored or is storing: rows chunk by chunk, in order, then the snapshots at its end.
    #: The caller commits or abandons each.
    parts: list[ReservedPart] = field(default_factory=list)
    #: True when the pool had no room for some of it.
    full: bool = False


@dataclass(slots=True, eq=False)
class PendingPrefetch(Pending):
    """Ends when what is stored of a text is in memory."""

    #: From the start of the text.
    ready_tokens: int = 0


@dataclass(slots=True, eq=False)
class PendingCommit(Pending):
    """Ends when the written parts are visible."""


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
