"""What computing a token of a prompt costs this engine, measured while it works.

A step cannot be timed from the scheduler's hooks: with asynchronous scheduling the next one is planned while it runs.
What can be seen is a prompt's first answer token, so time is taken from a plan to that token, over all that was planned
in between:

    plan A   plan B         A answers      B answers
      ├─────────┼──────────────┤──────────────┤
      began     ┊ waits for A  └─ A's tokens  └─ B's tokens, from A's answer on

The engine is busy all that time. Nothing is learned where copies were waited for, or a request went away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from reprise_engine.scheduler.tracked_request import EngineRequest

#: Steps of fewer tokens cost more a token: they tell what one costs at most.
LARGE_TOKENS = 512
_weight = 0.3


class PrefillRate:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: None: nothing is known. Until `is_measured` it is more than the true cost.
        self.ms_per_token: float | None = None
        self.is_measured = False
        #: When the work began that has not answered yet; None: there is none.
        self._began: float | None = None
        self._tokens = 0
        self._disturbed = False
        #: Requests whose prompts end in it, and the tokens planned up to their ends.
        self._ending: deque[tuple[EngineRequest, int]] = deque()

    def planned(self, tokens: int, ending: Iterable[EngineRequest], *, loads: bool) -> None:
        """A step of so many tokens was planned, in which these requests' prompts end. `loads`: it waits for copies."""
        if self._began is None:
            self._began = self._clock()
            self._disturbed = False
        self._tokens += tokens
        self._disturbed |= loads
        for request in ending:
            if _has_answer(request):
                self._disturbed = True  # computed a second time: its end cannot be seen
            else:
                self._ending.append((request, self._tokens))

    def look(self) -> None:
        """Whether somebody has answered since the last look."""
        if self._began is None:
            return
        ended = 0
        while self._ending and _has_answer(self._ending[0][0]):
            ended = self._ending.popleft()[1]
        if ended == 0:
            return
        now = self._clock()
        if not self._disturbed:
            self._learn(ended, 1000 * (now - self._began))
        self._tokens -= ended
        self._ending = deque((request, tokens - ended) for request, tokens in self._ending)
        self._began = now if self._tokens > 0 else None

    def gone(self, request: EngineRequest) -> None:
        """A request is over, or has lost what was computed of it."""
        if self._began is None or _has_answer(request):
            return
        self._disturbed = True
        self._ending = deque(pair for pair in self._ending if pair[0] is not request)
        if not self._ending:
            self._began = None
            self._tokens = 0

    def _learn(self, tokens: int, ms: float) -> None:
        cost = max(1e-6, ms / tokens)
        known = self.ms_per_token
        if known is None or (tokens >= LARGE_TOKENS and not self.is_measured):
            self.ms_per_token = cost
        elif tokens >= LARGE_TOKENS:
            self.ms_per_token = known + (cost - known) * _weight
        else:
            self.ms_per_token = min(known, cost)
        self.is_measured |= tokens >= LARGE_TOKENS


def _has_answer(request: EngineRequest) -> bool:
    return request.num_tokens > request.num_prompt_tokens
