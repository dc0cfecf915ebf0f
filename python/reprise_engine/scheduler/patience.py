"""How long the engine may be kept waiting, for an answer of the cache and for a load: against what computing costs."""

from __future__ import annotations

from reprise_engine.options import Options
from reprise_engine.scheduler.prefill_rate import LARGE_TOKENS, PrefillRate

#: A load that takes longer than computing would have is given up; loads of this many seconds are always waited for.
_shortest_load_seconds = 0.25
#: The engine stands still while it waits for the cache: for that share of what it would compute instead, and no longer.
_share_to_wait = 0.01
_longest_wait_seconds = 0.1
#: An engine that does not know what a token costs it computes that share of a long hit to find out.
_share_to_learn = 1 / 8


class Patience:
    def __init__(self, options: Options, prefill: PrefillRate, chunk_tokens: int) -> None:
        self._options = options
        self._prefill = prefill
        self._chunk_tokens = chunk_tokens

    def for_an_answer(self, tokens: int) -> float:
        """Seconds a request may wait for the cache's answer: as the option says, or longer where much is at stake."""
        least = self._options.lookup_deadline_ms / 1000
        cost = self._prefill.ms_per_token
        if cost is None or not self._prefill.is_measured:
            return least
        return max(least, min(_longest_wait_seconds, tokens * cost / 1000 * _share_to_wait))

    def for_others(self, missing: int, *, awaited: bool = False) -> float:
        """Seconds a request may wait in the engine's queue until shared stores have said which of its `missing` tokens
        they have: no longer than computing them would take. What is `awaited` comes: another engine has computed it.
        """
        most = self._options.shared_deadline_ms / 1000
        cost = self._prefill.ms_per_token
        return most if cost is None or awaited else min(most, missing * cost / 1000)

    def for_a_load(self, tokens: int) -> float:
        """Seconds a load between steps may take: as long as computing would, where that is known."""
        most = self._options.load_deadline_ms / 1000
        cost = self._prefill.ms_per_token
        return most if cost is None else min(most, max(_shortest_load_seconds, tokens * cost / 1000))

    def without_lesson(self, ready: int, worth: int) -> int:
        """Where a load between steps ends when the engine does not know yet how fast it is: a little before all."""
        if self._prefill.is_measured or (worth - ready) * _share_to_learn < LARGE_TOKENS:
            return worth
        return (worth - LARGE_TOKENS) // self._chunk_tokens * self._chunk_tokens
