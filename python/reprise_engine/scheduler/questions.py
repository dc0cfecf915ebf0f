"""Questions to the cache for requests that wait for their turn: how much of their texts is stored.

    a request comes, the engine is busy  ──► asked early                        answered before its turn comes
    its turn, and the cache says that    ──► asked elsewhere, once a request    it stays in the engine's queue, for no
    others may have more                     (shared stores, other hosts)       longer than computing would take
    it says that somebody is storing     ──► asked elsewhere, until it is there the same
    its text just now

    word:   ask ──► a load may be claimed    wait ──► to be asked again in the next step    nothing, late ──► computed

What this host has is answered at once, and waited for within the engine's step. A store is not: the engine goes on, and
waits a few milliseconds a step only when it has nothing else to do, since it would turn in a circle otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from reprise.pending import PendingLookup
from reprise_engine.counters import Counters
from reprise_engine.jobs import Geometry
from reprise_engine.options import Options
from reprise_engine.scheduler.patience import Patience
from reprise_engine.scheduler.prefill_rate import PrefillRate
from reprise_engine.scheduler.rank_links import RankLinks
from reprise_engine.scheduler.tracked_request import TrackedRequest

#: How long an answer may take; how long a request waits for it is another matter. One that came early is believed for
#: as long.
_longest_seconds = 5.0
#: How long a step may wait for others when the step before it had nothing to do.
_idle_seconds = 0.005

Word = Literal["ask", "wait", "nothing", "late"]


class Questions:
    def __init__(
        self,
        links: RankLinks,
        geometry: Geometry,
        options: Options,
        counters: Counters,
        prefill: PrefillRate,
        patience: Patience,
        clock: Callable[[], float],
    ) -> None:
        self._links = links
        self._geometry = geometry
        self._options = options
        self._counters = counters
        self._prefill = prefill
        self._patience = patience
        self._clock = clock
        #: The last step had nothing to do: the next may wait, once.
        self._may_wait = False

    def stepped(self, *, idle: bool) -> None:
        """A step was planned. `idle`: without a token."""
        self._may_wait = idle

    def ask_early(self, tracked: TrackedRequest) -> None:
        """The request waits for its turn: meanwhile the cache may say how much of it is stored."""
        limit = self._geometry.whole_blocks(tracked.request.num_tokens - 1)
        if tracked.may_read and limit > 0 and self._links.up:
            self._ask(tracked, limit)

    def ask_elsewhere(self, tracked: TrackedRequest, missing: int) -> bool:
        """Others may have the `missing` tokens that this host lacks. True: they are asked, and the request waits."""
        if tracked.asked_elsewhere or self._seconds_elsewhere(tracked, missing) == 0:
            return False
        self._ask(tracked, missing)
        if tracked.question is None:
            return False
        tracked.asked_elsewhere = True
        self._counters.add("asked_elsewhere")
        return True

    def word(self, tracked: TrackedRequest, computed: int, missing: int) -> Word:
        """What is known of a request's question. `missing`: tokens after the first `computed` that could be loaded."""
        if tracked.awaited == "yes" and tracked.question is None:
            self._ask(tracked, missing)
        question = tracked.question
        if question is None:
            return "ask"
        seconds = self._seconds_elsewhere(tracked, missing - max(0, question.hit_tokens - computed))
        if not tracked.asked_elsewhere:
            if not self._links.wait_for_word(question, self._patience.for_an_answer(missing)):
                self.drop(tracked)
                return "late"
            if question.more and seconds > 0:
                self._counters.add("asked_elsewhere")
            tracked.asked_elsewhere = question.more
        if not question.done and self._clock() - question.sent_at < seconds and not self._comes(question):
            return "wait"
        self.drop(tracked)
        if question.failed:
            if tracked.asked_elsewhere and seconds > 0:
                self._counters.add("asked_elsewhere_late")
            return "ask"
        is_fresh = self._clock() - question.sent_at < _longest_seconds
        return "nothing" if is_fresh and self._geometry.whole_blocks(question.hit_tokens) <= computed else "ask"

    def drop(self, tracked: TrackedRequest) -> None:
        """Nobody waits for the answer any more."""
        if tracked.question is not None:
            if not tracked.question.done:
                self._links.stop_asking(tracked.question)
            tracked.question = None

    def _comes(self, question: PendingLookup) -> bool:
        """Whether the answer comes while an engine waits that has nothing else to do."""
        may_wait, self._may_wait = self._may_wait, False
        return may_wait and self._links.wait_for(question, _idle_seconds)

    def _ask(self, tracked: TrackedRequest, missing: int) -> None:
        """Asks for all whole blocks: a store that has the text knows its end by them."""
        seconds = self._seconds_elsewhere(tracked, missing)
        awaited = tracked.awaited == "yes" and seconds > 0
        tracked.question = self._links.lookup(
            tracked.tokens(self._geometry.whole_blocks(tracked.request.num_tokens)),
            tracked.root.salt,
            tracked.root.adapter,
            deadline_ms=round((seconds if awaited else _longest_seconds) * 1000) + 1,
            compute_ms_per_token=self._prefill.ms_per_token,
            awaited=awaited,
        )
        if tracked.awaited == "yes":
            tracked.awaited = "asked"

    def _seconds_elsewhere(self, tracked: TrackedRequest, missing: int) -> float:
        if missing < self._options.min_disk_tokens:
            return 0.0
        return self._patience.for_others(missing, awaited=tracked.awaited != "no")
