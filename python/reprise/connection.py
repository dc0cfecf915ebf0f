"""One connection to the cache: requests out, answers in, and which leases came over it.

A connection is an epoch. Leases carry it, so that those of an earlier one are never mistaken for this one's:

    lease seen by the caller = epoch x 2**36 + lease of the cache

`poll` does all that can be done without waiting. When it leaves `failure` set, the connection is over: every request
has failed and every lease has fallen.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from reprise import protocol
from reprise.channel import Channel
from reprise.errors import ProtocolError, RepriseError
from reprise.kinds import MAX_DEADLINE_MS, MAX_LISTED, MAX_NUMBER
from reprise.pending import (
    Pending,
    PendingClear,
    PendingCommit,
    PendingLoad,
    PendingLookup,
    PendingPing,
    PendingPrefetch,
    PendingReserve,
    PendingStats,
)
from reprise.protocol import MAX_PENDING_REQUESTS, Answer, Request

_EPOCH_STEP: Final = 2**36
_NEVER: Final = float("inf")

AnyPending = TypeVar("AnyPending", bound=Pending)
_Item = TypeVar("_Item")


class Connection:
    """Raises OSError from its constructor when nobody listens on `socket_path`."""

    def __init__(
        self, socket_path: str, *, epoch: int, groups: int, outgoing_limit_bytes: int, counters: Counter[str]
    ) -> None:
        self.epoch = epoch
        #: How many the space has.
        self._groups = groups
        self.welcome: protocol.Welcome | None = None
        #: Why it is over; None while it stands.
        self.failure: Exception | None = None
        #: time.monotonic() of the last message, and of the last time that the connection was found standing.
        self.last_heard = 0.0
        self.last_good = 0.0
        self._counters = counters
        self._waiting: dict[int, Pending] = {}
        #: Requests nobody waits for any more whose answer has not come: bounded like those that wait.
        self._late: dict[int, Pending] = {}
        self._held: set[int] = set()
        self._last_number = 0
        self._first_deadline = _NEVER
        self._channel = Channel(socket_path, outgoing_limit_bytes=outgoing_limit_bytes)

    @property
    def pending_requests(self) -> int:
        """Requests that wait for their answers."""
        return len(self._waiting)

    @property
    def has_outgoing(self) -> bool:
        """Something waits until the cache reads."""
        return self._channel.outgoing_bytes > 0

    def fileno(self) -> int:
        """The socket, for select and poll."""
        return self._channel.fileno()

    def poll(self, now: float) -> None:
        """Takes answers, sends what waits, ends what is late. Answers that are there count, however late it is."""
        try:
            for answer in self._channel.receive():
                self.last_heard = now
                self._take(answer)
        except RepriseError as error:
            self.end(error)
            return
        self._channel.flush()
        if self._channel.failure is not None:
            self.end(self._channel.failure)
            return
        if self._channel.drained:
            self.last_good = now
        if now >= self._first_deadline:
            self._end_late(now)

    def has_room(self, message_bytes: int) -> bool:
        """Whether a further request of that size may be sent."""
        waiting = len(self._waiting) + len(self._late)
        return waiting < MAX_PENDING_REQUESTS and self._channel.has_room(message_bytes)

    def ask(self, kind: type[AnyPending], deadline_ms: float, request: Callable[[int, int], Request]) -> AnyPending:
        """Sends the request that `request` makes of its number and deadline."""
        now = time.monotonic()
        wait_ms = whole_number(deadline_ms, MAX_DEADLINE_MS)
        self._last_number += 1
        pending = kind(self._last_number, self.epoch, now, now + wait_ms / 1000)
        self._waiting[pending.id] = pending
        self._first_deadline = min(self._first_deadline, pending.deadline)
        self._counters["requests"] += 1
        self._channel.send(request(pending.id, wait_ms))
        return pending

    def commit(self, parts: Iterable[tuple[int, int]], deadline_ms: float) -> PendingCommit | None:
        """See `CacheLink.commit`."""
        base = _EPOCH_STEP * self.epoch
        pending: PendingCommit | None = None
        given = list(parts)
        kept = [(lease, written) for lease, written in given if 0 < written <= MAX_NUMBER]
        if len(kept) < len(given):  # no such payload can be: as the cache would do, the part is given up
            self.give_back(protocol.Abandon, [lease for lease, written in given if not 0 < written <= MAX_NUMBER])
        held = [protocol.WrittenPart(lease - base, int(bytes)) for lease, bytes in kept if self._drop(lease)]
        for listed in _lists(held):
            pending = self.ask(PendingCommit, deadline_ms, partial(_commit_message, listed))
            if pending is None:  # not sent: nothing of it is stored
                self._channel.send(protocol.Abandon(leases=[part.lease for part in listed]))
        return pending

    def give_back(self, message: type[protocol.Release | protocol.Abandon], leases: Iterable[int]) -> None:
        """Sends the leases that stand back; whatever waits in the buffer, since it must not be lost."""
        base = _EPOCH_STEP * self.epoch
        for listed in _lists([lease - base for lease in leases if self._drop(lease)]):
            self._channel.send(message(leases=listed))

    def holds(self, lease: int) -> bool:
        """True while the lease stands, as far as the last `poll` knew."""
        return lease in self._held

    def give_up(self, pending: Pending) -> None:
        """Stops waiting for a request: what still comes is given back."""
        if self._waiting.pop(pending.id, None) is None:
            return
        self._late[pending.id] = pending
        pending.done = pending.failed = True
        self._channel.send(protocol.Cancel(id=pending.id))

    def bye(self) -> None:
        """Tells the cache that every lease may fall at once."""
        self._channel.send(protocol.Bye())

    def end(self, failure: Exception) -> None:
        """Closes the socket. Every request fails, every lease falls."""
        self.failure = failure
        self._channel.close()
        self._held.clear()
        self._late.clear()
        waiting = list(self._waiting.values())
        self._waiting.clear()
        for pending in waiting:
            pending.done = pending.failed = True

    def _take(self, answer: Answer) -> None:
        pending = self._waiting.get(answer.id)
        request = pending if pending is not None else self._late.get(answer.id)
        if request is None:
            raise ProtocolError("the cache answered what was not asked")
        leases = self._take_leases(answer)
        if pending is not None:
            self._fill(pending, answer)
        elif isinstance(answer, protocol.Parts):
            self.give_back(protocol.Release, leases)
        elif isinstance(answer, protocol.Reserved):
            self.give_back(protocol.Abandon, leases)
        if isinstance(request, PendingLoad) and isinstance(answer, protocol.Found | protocol.Parts):
            return  # more will come
        if isinstance(request, PendingLookup) and isinstance(answer, protocol.Found) and answer.more:
            return  # others are asked
        self._late.pop(answer.id, None)
        if self._waiting.pop(answer.id, None) is not None:
            request.done = True

    def _take_leases(self, answer: Answer) -> list[int]:
        if not isinstance(answer, protocol.Parts | protocol.Reserved):
            return []
        base = _EPOCH_STEP * self.epoch
        pool_bytes = 0 if self.welcome is None else self.welcome.pool_bytes
        groups = self._groups
        for part in answer.parts:
            if part.lease >= _EPOCH_STEP or part.offset + part.bytes > pool_bytes:
                raise ProtocolError("the cache named a slot that is not in its pool")
            if part.group >= groups:
                raise ProtocolError("the cache named a group that the space does not have")
            part.lease += base
        leases = [part.lease for part in answer.parts]
        self._held.update(leases)
        return leases

    def _fill(self, pending: Pending, answer: Answer) -> None:
        match pending, answer:
            case _, protocol.Refused():
                pending.failed = True
                self._counters["refused_by_cache"] += 1
                if self.welcome is None:
                    raise RepriseError(answer.code, f"the cache refused: {answer.message}")
            case PendingLookup(), protocol.Found():
                pending.tell(answer.segments, answer.worth_tokens, answer.more)
            case PendingLoad(), protocol.Found() if not pending.found:
                pending.found = True
                pending.tell(answer.segments, answer.worth_tokens, answer.more)
            case PendingLoad(found=True), protocol.Parts():
                pending.parts += answer.parts
            case PendingReserve(), protocol.Reserved():
                pending.parts = answer.parts
                pending.full = answer.full
            case PendingPrefetch(), protocol.Prefetched():
                pending.ready_tokens = answer.ready_tokens
            case PendingStats(), protocol.Figures():
                pending.stats = answer.stats
            case PendingClear(), protocol.Cleared():
                pending.bytes_by_tier = answer.bytes_by_tier
                pending.chunks_in_use = answer.chunks_in_use
            case (
                (PendingLoad(), protocol.Loaded())
                | (PendingCommit(), protocol.Committed())
                | (PendingPing(), protocol.Pong())
            ):
                pass
            case _, protocol.Welcome() if self.welcome is None and type(pending) is Pending:
                self.welcome = answer
                self._channel.end_handshake()
            case _:
                raise ProtocolError("the cache answered something else than it was asked")

    def _end_late(self, now: float) -> None:
        for pending in [pending for pending in self._waiting.values() if now >= pending.deadline]:
            self._counters["late_requests"] += 1
            self.give_up(pending)
        self._first_deadline = min((pending.deadline for pending in self._waiting.values()), default=_NEVER)

    def _drop(self, lease: int) -> bool:
        if lease not in self._held:
            return False
        self._held.discard(lease)
        return True


def whole_number(value: float, limit: int = MAX_NUMBER) -> int:
    """The number as the wire can carry it: whole, from 0 to `limit`; 0 for what is no number."""
    if not value > 0:
        return 0
    return limit if value >= limit else math.ceil(value)


def _commit_message(parts: list[protocol.WrittenPart], id: int, deadline_ms: int) -> protocol.Commit:
    return protocol.Commit(id=id, deadline_ms=deadline_ms, parts=parts)


def _lists(items: Sequence[_Item]) -> list[list[_Item]]:
    """The items in lists as long as a message holds."""
    return [list(items[first : first + MAX_LISTED]) for first in range(0, len(items), MAX_LISTED)]
