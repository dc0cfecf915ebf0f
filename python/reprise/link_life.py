"""The connection beneath a link: made, kept alive, given up when it is silent, and made again.

    down ──poll──► handshake ──welcome──► up ──broken, silent──► down        (each connection is an epoch of its own)

Nothing waits but `connect`, `wait` and `wait_for_parts`, at most as long as they are told. What a cache is asked for
over it: link.py.
"""

import select
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from reprise import protocol
from reprise.connection import AnyPending, Connection
from reprise.errors import ProtocolError, RepriseError
from reprise.keys import is_utf8, tenant_name
from reprise.kinds import MAX_GROUPS, MAX_TEXT_CHARACTERS
from reprise.pending import Pending, PendingLoad, PendingLookup, PendingPing
from reprise.protocol import REGISTERED_POOL, Request
from reprise.space import SpaceDescription, groups_of, space_id

#: For how long after the link was last found standing a lease may be relied on: the cache's 5 s, less a margin.
GRACE_SECONDS: Final = 4.0

_REMEMBERED_EPOCHS: Final = 16
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.6
#: The fields of a request beside its tokens, salt and adapter.
_REQUEST_BYTES: Final = 256

LinkState = Literal["down", "handshake", "up"]


class LinkLife:
    """What a `CacheLink` is beneath its requests; what its arguments mean is told there."""

    def __init__(
        self,
        *,
        socket_path: str,
        space: SpaceDescription,
        rank: int,
        slot_bytes: Sequence[int],
        token: str = "",
        ping_seconds: float = 5.0,
        handshake_seconds: float = 5.0,
        outgoing_limit_bytes: int = 16 * 1024 * 1024,
        registers_pool: bool = False,
        tenant: str | None = None,
        model: str = "",
    ) -> None:
        _must_fit(space, {"token": token, "model": model}, slot_bytes)
        self.socket_path = socket_path
        self.space = space
        self.space_id = space_id(space)
        self.rank = rank
        self.slot_bytes = list(slot_bytes)
        self._token = token
        self._model = model
        self._tenant = None if tenant is None else tenant_name(tenant)
        self._ping_seconds = ping_seconds
        self._handshake_seconds = handshake_seconds
        self._outgoing_limit_bytes = outgoing_limit_bytes
        self._features = [REGISTERED_POOL] if registers_pool else []

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
        self._handshake: Pending | None = None
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
        if connection.failure is None and self.state == "handshake":
            self._finish_handshake(connection, now)
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
        return self._wait_until(pending, lambda: False, seconds)

    def wait_for_word(self, lookup: PendingLookup, seconds: float) -> bool:
        """Waits until others are asked for more of the text, or the lookup is done. Returns whether it is so."""
        return self._wait_until(lookup, lambda: lookup.more, seconds)

    def wait_for_parts(self, load: PendingLoad, count: int, seconds: float) -> bool:
        """Waits until `load` has `count` parts or is done, at most `seconds`. Returns whether it is so."""
        return self._wait_until(load, lambda: len(load.parts) >= count, seconds)

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

    def _wait_until(self, pending: Pending, is_there: Callable[[], bool], seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not (pending.done or is_there()):
            self.poll()
            if pending.done or is_there():
                break
            now = time.monotonic()
            if now >= until:
                return False
            self._sleep(min(until, pending.deadline) - now)
        return True

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
                groups=len(self.slot_bytes),
                outgoing_limit_bytes=self._outgoing_limit_bytes,
                counters=self._counters,
            )
        except OSError as error:
            self._lost(RepriseError("CACHE_UNAVAILABLE", f"no cache answers on {self.socket_path}: {error}"))
            return
        self.epoch += 1
        self.state = "handshake"
        self._connection = connection
        self._handshake = connection.ask(
            Pending,
            self._handshake_seconds * 1000,
            lambda id, ms: protocol.Hello(
                id=id,
                space=self.space,
                rank=self.rank,
                slot_bytes=self.slot_bytes,
                token=self._token,
                model=self._model,
                features=self._features,
            ),
        )

    def _finish_handshake(self, connection: Connection, now: float) -> None:
        welcome = connection.welcome
        if welcome is None:
            if self._handshake is not None and self._handshake.done:
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


def _must_fit(space: SpaceDescription, own_texts: Mapping[str, str], slot_bytes: Sequence[int]) -> None:
    """The cache would close the connection without a word, or refuse each attempt."""
    groups = len(groups_of(space))
    if groups > MAX_GROUPS or len(slot_bytes) != groups:
        raise RepriseError(
            "BAD_REQUEST",
            f"slot_bytes must have one size for each group of the space, {MAX_GROUPS} at most: "
            f"it has {len(slot_bytes)} for {groups}",
        )
    if not all(isinstance(size, int) and size > 0 for size in slot_bytes):
        raise RepriseError("BAD_REQUEST", f"slot_bytes must be whole numbers above 0, not {list(slot_bytes)}")
    texts = {name: getattr(space, name) for name in space.__struct_fields__}
    for name, text in [*texts.items(), *own_texts.items()]:
        if isinstance(text, str) and (not is_utf8(text) or _utf16_length(text) > MAX_TEXT_CHARACTERS):
            raise RepriseError(
                "BAD_REQUEST",
                f"{name} must be a text of at most {MAX_TEXT_CHARACTERS} whole characters to be sent to a cache",
            )


def _utf16_length(text: str) -> int:
    """As the cache counts characters."""
    return len(text.encode("utf-16-le")) // 2


def _other_version(version: int) -> str:
    return (
        f"the cache speaks protocol version {version}, this client {protocol.PROTOCOL_VERSION}: "
        "run the same release of Reprise on both sides"
    )
