"""No fault of ours reaches vLLM: an exception in one of its hooks would end the engine.

A hook that raises answers with its fallback instead, and is counted and logged. What follows depends on whose it is:

    a hook of one request   that request goes on without the cache; nothing else changes, since what requests hold
                            comes from clients, who must not be able to switch anything off
    a hook of a step        is ours. A connector in which too many of them raise within a while rests, and tries again
                            after a pause that doubles each time; a good hour makes it short again
"""

from __future__ import annotations

import functools
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from reprise_engine.log import log

#: Faults of steps within `memory_seconds` after which a connector rests.
faults_tolerated = 16
memory_seconds = 600.0
shortest_pause_seconds = 60.0
longest_pause_seconds = 3600.0
#: Faults of each hook that are logged, and after how long it may be logged as often again.
_faults_logged = 3
_logged_again_seconds = 3600.0

Hook = TypeVar("Hook", bound=Callable[..., Any])


class FaultBudget:
    """How many faults a connector may still have before it rests, and until when it does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: deque[float] = deque()
        self._logged: Counter[str] = Counter()
        self._logged_since = clock()
        self._rests_until = 0.0
        self._rested_at: float | None = None
        self.pause_seconds = shortest_pause_seconds

    def is_to_log(self, hook: str) -> bool:
        now = self._clock()
        if now - self._logged_since > _logged_again_seconds:
            self._logged.clear()
            self._logged_since = now
        self._logged[hook] += 1
        return self._logged[hook] <= _faults_logged

    def spend(self) -> bool:
        """One more fault of a step. True: it is one too many, and the pause begins."""
        now = self._clock()
        self._recent.append(now)
        while self._recent[0] < now - memory_seconds:
            self._recent.popleft()
        if len(self._recent) < faults_tolerated:
            return False
        self._recent.clear()
        is_again = self._rested_at is not None and now - self._rested_at < longest_pause_seconds
        longer = min(longest_pause_seconds, self.pause_seconds * 2)
        self.pause_seconds = longer if is_again else shortest_pause_seconds
        self._rests_until = now + self.pause_seconds
        return True

    def has_rested(self) -> bool:
        """The pause is over: the connector may try again."""
        now = self._clock()
        if now < self._rests_until:
            return False
        self._rested_at = now
        return True


class Guarded(Protocol):
    #: How often each hook has raised.
    faults: dict[str, int]
    budget: FaultBudget
    #: Every hook answers with its fallback: for as long as the connector rests, or for good where it does not fit.
    switched_off: bool

    def set_aside(self, request: Any) -> None:
        """This request goes on without the cache."""


def guarded(fallback: Callable[[Any], Any], *, also_while_resting: bool = False) -> Callable[[Hook], Hook]:
    """Makes a hook of a step answer `fallback(connector)` where it would raise, and while the connector is switched
    off. `also_while_resting`: it keeps books that must stay true, and runs all the same.
    """

    def decorate(hook: Hook) -> Hook:
        @functools.wraps(hook)
        def safe(connector: Any, *arguments: Any, **named: Any) -> Any:
            if connector.switched_off and not also_while_resting:
                return fallback(connector)
            try:
                return hook(connector, *arguments, **named)
            except Exception:
                note_fault(connector, hook.__name__)
                return fallback(connector)

        return cast(Hook, safe)

    return decorate


def guarded_by_request(fallback: Callable[[Any], Any], *, is_last: bool = False) -> Callable[[Hook], Hook]:
    """The same for a hook whose first argument is a request: where it raises, that request goes without the cache.
    `is_last`: the request's last hook, which runs also while the connector rests.
    """

    def decorate(hook: Hook) -> Hook:
        @functools.wraps(hook)
        def safe(connector: Any, request: Any, *arguments: Any, **named: Any) -> Any:
            if connector.switched_off and not is_last:
                return fallback(connector)
            try:
                return hook(connector, request, *arguments, **named)
            except Exception:
                _count(connector, hook.__name__)
            try:
                if not is_last:
                    connector.set_aside(request)
            except Exception:
                note_fault(connector, "set_aside")
            return fallback(connector)

        return cast(Hook, safe)

    return decorate


def note_fault(connector: Guarded, hook: str) -> None:
    """Counts and logs the exception that is being handled, which is a fault of ours."""
    _count(connector, hook)
    if not connector.switched_off and connector.budget.spend():
        connector.switched_off = True
        log.error(
            "Reprise rests for %d s after %d faults (%s): vLLM goes on without it",
            connector.budget.pause_seconds,
            faults_tolerated,
            connector.faults,
        )


def _count(connector: Guarded, hook: str) -> None:
    connector.faults[hook] = connector.faults.get(hook, 0) + 1
    if connector.budget.is_to_log(hook):
        log.exception("Reprise: %s failed; what it was asked for goes on without the cache", hook)
