"""One guest's link to the cache, made to live inside an engine's scheduler loop.

No threads and no waiting: requests go out at once or are refused, `poll` takes what has arrived, and only `wait`,
`wait_for_chunks` and `connect` block, at most as long as they are told. A cache that is slow, full, gone or mad is a
miss and a counter, never an exception; later polls make the connection again.

    down ──poll──► greeting ──welcome──► up ──broken, silent──► down        (each connection is an epoch of its own)

How long a lease protects a copy: the cache keeps the leases of a broken connection for 5 s. So a copy out of or into a
slot counts when it ended before `held_until` of its lease's epoch; each poll that finds the connection standing moves
that time on. A link belongs to one thread of one process; a forked child makes its own.
"""

import select
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

from reprise import protocol
from reprise.connection import AnyPending, Connection
from reprise.errors import ProtocolError, RepriseError
from reprise.pending import (
    Pending,
    PendingClear,
    PendingCommit,
    PendingLoad,
    PendingLookup,
    PendingPing,
    PendingReserve,
    PendingStats,
)
from reprise.protocol import MAX_REQUEST_TOKENS, PINNED_POOL, Request
from reprise.space import SpaceDescription, space_id
from reprise.tokens import TokenBuffer, token_bytes, token_bytes_each

#: For how long after the link was last found standing a lease may be relied on: the cache's 5 s, less a margin.
GRACE_SECONDS: Final = 4.0

_REMEMBERED_EPOCHS: Final = 16
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.6
#: The fields of a request beside its tokens, salt and adapter.
_REQUEST_BYTES: Final = 256

LinkState = Literal["down", "greeting", "up"]


class CacheLink:
    """A session of one guest (one rank of one engine) with the cache that listens on `socket_path`.

    `slot_bytes`: payload bytes of a full chunk of one rank, the same for all guests of a space.
    `token`: what the cache asks for; "" when it asks for nothing.
    `ping_seconds`: an idle cache is asked for a sign of life this often by `poll`, and given up when it gives none for
    as long. `greeting_seconds`: how long the handshake may take.
    `pins_pool`: the pool will be registered with a device: it does not shrink while this link stands.
    `outgoing_limit_bytes`: what may wait in this process for a cache that reads slowly; beyond it requests are refused.

    The constructor opens nothing: the first `poll` or `connect` does. Raises TypeError when the space is malformed.
    """

    def __init__(
        self,
        *,
        socket_path: str,
        space: SpaceDescription,
        rank: int,
        slot_bytes: int,
        token: str = "",
        ping_seconds: float = 5.0,
        greeting_seconds: float = 5.0,
        outgoing_limit_bytes: int = 16 * 1024 * 1024,
        pins_pool: bool = False,
    ) -> None:
        self.socket_path = socket_path
        self.space = space
        self.space_id = space_id(space)
        self.rank = rank
        self.slot_bytes = slot_bytes
        self._token = token
        self._ping_seconds = ping_seconds
        self._greeting_seconds = greeting_seconds
        self._outgoing_limit_bytes = outgoing_limit_bytes
        self._features = [PINNED_POOL] if pins_pool else []

        self.state: LinkState = "down"
        #: The number of the present connection, or of the last one. Each new connection has a greater one.
        self.epoch = 0
        #: The pool of the present connection, or of the last one; "" and 0 before the first.
        self.pool_path = ""
        self.pool_bytes = 0
        #: How much of the pool may be in use at a time, from its beginning on unless it was resized.
        self.pool_capacity_bytes = 0
        #: time.monotonic() of: the present connection's welcome, the last message, the last poll that found the
        #: connection standing. All of the last connection while there is none, and 0.0 before the first.
        self.alive_since = 0.0
        self.last_heard = 0.0
        self.last_good = 0.0
        #: Why the last connection or attempt ended; None once it is up again.
        self.last_error: Exception | None = None
        self._last_good_of: dict[int, float] = {}
        self._counters: Counter[str] = Counter()
        self._connection: Connection | None = None
        self._greeting: Pending | None = None
        self._ping: PendingPing | None = None
        self._next_try = 0.0
        self._pause = _FIRST_PAUSE_SECONDS
        self._closed = False

    @property
    def counters(self) -> Mapping[str, int]:
        """What has happened so far, by name; what has not happened counts 0.

        connections, failed_connections, lost_connections, requests, refused_requests (not sent: down, full),
        refused_by_cache, late_requests.
        """
        return self._counters

    @property
    def pending_requests(self) -> int:
        """Requests that wait for their answers."""
        return 0 if self._connection is None else self._connection.pending_requests

    def fileno(self) -> int:
        """The socket, for a select of the caller's own; -1 while there is none."""
        return -1 if self._connection is None else self._connection.fileno()

    def poll(self) -> None:
        """Does all that can be done without waiting: connects, takes answers, sends what waits, ends what is late."""
        if self._closed:
            return
        now = time.monotonic()
        if self._connection is None:
            if now < self._next_try:
                return
            self._open(now)
        connection = self._connection
        if connection is None:
            return
        connection.poll(now)
        self.last_heard = max(self.last_heard, connection.last_heard)
        if connection.failure is None and self.state == "greeting":
            self._greet(connection, now)
        if connection.failure is None and self.state == "up":
            self.last_good = max(self.last_good, connection.last_good)
            self._last_good_of[connection.epoch] = connection.last_good
            self._beat(connection, now)
        if connection.failure is not None:
            self._lost(connection.failure)

    def connect(self, timeout: float) -> bool:
        """Waits until the link is up, at most `timeout` seconds. On False `last_error` says why it is not."""
        until = time.monotonic() + timeout
        self._next_try = 0.0
        while True:
            self.poll()
            left = until - time.monotonic()
            if self.state == "up" or left <= 0 or self._closed:
                return self.state == "up"
            self._sleep(left)

    def wait(self, pending: Pending, seconds: float) -> bool:
        """Waits until `pending` is done, at most `seconds`. Returns whether it is; otherwise it stays under way."""
        until = time.monotonic() + seconds
        while not pending.done:
            self.poll()
            left = min(until, pending.deadline) - time.monotonic()
            if pending.done or time.monotonic() >= until:
                break
            self._sleep(left)
        return pending.done

    def wait_for_chunks(self, load: PendingLoad, count: int, seconds: float) -> bool:
        """Waits until `load` has `count` chunks or is done, at most `seconds`. Returns whether it is so."""
        until = time.monotonic() + seconds
        while not (load.done or len(load.chunks) >= count):
            self.poll()
            if load.done or len(load.chunks) >= count:
                break
            now = time.monotonic()
            if now >= until:
                return False
            self._sleep(min(until, load.deadline) - now)
        return True

    def lookup(
        self,
        tokens: TokenBuffer,
        salt: str = "",
        adapter: str = "",
        deadline_ms: float = 1000,
        compute_ms_per_token: float | None = None,
    ) -> PendingLookup | None:
        """How much of `tokens` (u32 LE) is stored, and where. Moves nothing. None: not sent, count it as a miss.

        `compute_ms_per_token`: what computing a token costs. The answer then says how much is worth loading.
        """
        compute_ns = _nanoseconds(compute_ms_per_token)
        view = _cut(tokens)
        return self._ask(
            PendingLookup,
            len(view),
            deadline_ms,
            lambda id, ms: protocol.Lookup(
                id=id, deadline_ms=ms, salt=salt, adapter=adapter, tokens=view, compute_ns=compute_ns
            ),
        )

    def load(
        self,
        tokens: TokenBuffer,
        salt: str = "",
        adapter: str = "",
        from_token: int = 0,
        only_ready: bool = False,
        deadline_ms: float = 1000,
        compute_ms_per_token: float | None = None,
    ) -> PendingLoad | None:
        """Leases the chunks of the longest stored prefix of `tokens`, from the one that contains `from_token`.

        `only_ready`: lease only the leading run of chunks that are in memory, and read nothing from disk. Chunks arrive
        in order; those that are there at the deadline may be used. With `compute_ms_per_token` they end where computing
        is expected to be faster. None: not sent, count it as a miss.
        """
        compute_ns = _nanoseconds(compute_ms_per_token)
        view = _cut(tokens)
        return self._ask(
            PendingLoad,
            len(view),
            deadline_ms,
            lambda id, ms: protocol.Load(
                id=id,
                deadline_ms=ms,
                salt=salt,
                adapter=adapter,
                tokens=view,
                compute_ns=compute_ns,
                from_token=from_token,
                only_ready=only_ready,
            ),
        )

    def reserve(
        self, tokens: TokenBuffer, salt: str = "", adapter: str = "", deadline_ms: float = 1000
    ) -> PendingReserve | None:
        """Asks for slots for the chunks of `tokens` that are not stored, tail included.

        None: not sent, save nothing.
        """
        view = _cut(tokens)
        return self._ask(
            PendingReserve,
            len(view),
            deadline_ms,
            lambda id, ms: protocol.Reserve(id=id, deadline_ms=ms, salt=salt, adapter=adapter, tokens=view),
        )

    def commit(self, chunks: Iterable[tuple[int, int]], deadline_ms: float = 5000) -> PendingCommit | None:
        """Makes written chunks visible: (lease, bytes written) of each. Fallen leases are left out.

        None when no lease is left: nothing is stored then.
        """
        return None if self._connection is None else self._connection.commit(chunks, deadline_ms)

    def release(self, leases: Iterable[int]) -> None:
        """Gives leases of loads back. Unknown and fallen ones are ignored."""
        if self._connection is not None:
            self._connection.give_back(protocol.Release, leases)

    def abandon(self, leases: Iterable[int]) -> None:
        """Gives reserved slots back unwritten. Unknown and fallen ones are ignored."""
        if self._connection is not None:
            self._connection.give_back(protocol.Abandon, leases)

    def stats(self, deadline_ms: float = 1000) -> PendingStats | None:
        """The cache's figures. None: not sent."""
        return self._ask(PendingStats, 0, deadline_ms, lambda id, ms: protocol.Stats(id=id, deadline_ms=ms))

    def clear(self, deadline_ms: float = 120_000) -> PendingClear | None:
        """Makes the cache forget all that it has stored, for everybody, in memory and on disk. None: not sent."""
        return self._ask(PendingClear, 0, deadline_ms, lambda id, ms: protocol.Clear(id=id, deadline_ms=ms))

    def cancel(self, pending: Pending) -> None:
        """Ends a request: the leases that it has brought, and those that still come, are given back."""
        if self._connection is not None and pending.epoch == self._connection.epoch:
            self._connection.give_up(pending)
        pending.done = True
        if isinstance(pending, PendingLoad):
            self.release(chunk.lease for chunk in pending.chunks)
        elif isinstance(pending, PendingReserve):
            self.abandon(chunk.lease for chunk in pending.chunks)

    def holds(self, lease: int) -> bool:
        """True while the lease stands, as far as the last `poll` knew: poll after a copy, then ask."""
        return self._connection is not None and self._connection.holds(lease)

    def held_until(self, epoch: int) -> float:
        """time.monotonic() until which leases of that connection surely stand, or stood, unless they were given back.

        0.0 when the connection is long gone, or never was. For a copy that ended later: `poll`, and ask again.
        """
        good = self._last_good_of.get(epoch)
        return 0.0 if good is None else good + GRACE_SECONDS

    def close(self) -> None:
        """Says goodbye and ends the session: every lease falls at once. Nothing is sent after it."""
        if self._closed:
            return
        self._closed = True
        if self._connection is not None:
            self._connection.bye()
            self._connection.end(RepriseError("CANCELLED", "the link was closed"))
            self._connection = None
        self.state = "down"
        self._last_good_of.clear()

    def _ask(
        self, kind: type[AnyPending], token_bytes: int, deadline_ms: float, request: Callable[[int, int], Request]
    ) -> AnyPending | None:
        connection = self._connection
        if self.state == "up" and connection is not None and connection.has_room(token_bytes + _REQUEST_BYTES):
            return connection.ask(kind, deadline_ms, request)
        self._counters["refused_requests"] += 1
        return None

    def _open(self, now: float) -> None:
        self._next_try = now + self._pause
        try:
            connection = Connection(
                self.socket_path,
                epoch=self.epoch + 1,
                outgoing_limit_bytes=self._outgoing_limit_bytes,
                counters=self._counters,
            )
        except OSError as error:
            self._lost(RepriseError("CACHE_UNAVAILABLE", f"no cache answers on {self.socket_path}: {error}"))
            return
        self.epoch += 1
        self.state = "greeting"
        self._connection = connection
        self._greeting = connection.ask(
            Pending,
            self._greeting_seconds * 1000,
            lambda id, ms: protocol.Hello(
                id=id,
                space=self.space,
                rank=self.rank,
                slot_bytes=self.slot_bytes,
                token=self._token,
                features=self._features,
            ),
        )

    def _greet(self, connection: Connection, now: float) -> None:
        welcome = connection.welcome
        if welcome is None:
            if self._greeting is not None and self._greeting.done:
                connection.end(RepriseError("CACHE_UNAVAILABLE", f"{self.socket_path} did not answer in time"))
            return
        if welcome.version != protocol.PROTOCOL_VERSION:
            connection.end(ProtocolError(_other_version(welcome.version)))
            return
        if welcome.space_id != self.space_id:
            connection.end(ProtocolError("the cache computes another identity for this space"))
            return
        self.pool_path = welcome.pool_path
        self.pool_bytes = welcome.pool_bytes
        self.pool_capacity_bytes = welcome.pool_capacity_bytes
        self.alive_since = now
        self.last_error = None
        self.state = "up"
        self._ping = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._counters["connections"] += 1
        self._last_good_of.pop(self.epoch - _REMEMBERED_EPOCHS, None)

    def _beat(self, connection: Connection, now: float) -> None:
        """Asks an idle cache for a sign of life, and gives up one that owes it."""
        ping = self._ping
        if ping is not None and not ping.done:
            return
        if ping is not None and ping.failed and self.last_heard < ping.sent_at:
            connection.end(RepriseError("CACHE_UNAVAILABLE", "the cache gives no sign of life"))
            return
        self._ping = None
        if now - self.last_heard >= self._ping_seconds and connection.has_room(_REQUEST_BYTES):
            self._ping = connection.ask(
                PendingPing, self._ping_seconds * 1000, lambda id, ms: protocol.Ping(id=id, deadline_ms=ms)
            )

    def _lost(self, reason: Exception) -> None:
        self._counters["lost_connections" if self.state == "up" else "failed_connections"] += 1
        self._connection = None
        self.state = "down"
        self.last_error = reason
        self._next_try = time.monotonic() + self._pause
        self._pause = min(_LONGEST_PAUSE_SECONDS, self._pause * 2)

    def _sleep(self, seconds: float) -> None:
        """Until the socket has something, at most `seconds`."""
        connection = self._connection
        if connection is None:
            time.sleep(max(0.0, min(seconds, self._next_try - time.monotonic())))
            return
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN | (select.POLLOUT if connection.has_outgoing else 0))
        poller.poll(max(0.0, seconds) * 1000 + 0.5)


def _cut(tokens: TokenBuffer) -> memoryview:
    return token_bytes(tokens)[: MAX_REQUEST_TOKENS * token_bytes_each]


def _nanoseconds(compute_ms_per_token: float | None) -> int:
    """As the cost travels; 0 stands for "not known"."""
    return 0 if compute_ms_per_token is None else max(1, round(compute_ms_per_token * 1e6))


def _other_version(version: int) -> str:
    return (
        f"the cache speaks protocol version {version}, this client {protocol.PROTOCOL_VERSION}: "
        "run the same release of Reprise on both sides"
    )
