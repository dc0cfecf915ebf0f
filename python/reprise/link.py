"""One guest's link to the cache, made to live inside an engine's scheduler loop.

No threads and no waiting: requests go out at once or are refused, `poll` takes what has arrived, and only `wait`,
`wait_for_parts` and `connect` block, at most as long as they are told. A cache that is slow, full, gone or mad is a
miss and a counter, never an exception; later polls make the connection again (link_life.py).

How long a lease protects a copy: the cache keeps the leases of a broken connection for 5 s. So a copy out of or into a
slot counts when it ended before `held_until` of its lease's epoch; each poll that finds the connection standing moves
that time on. A link belongs to one thread of one process; a forked child makes its own.
"""

from collections.abc import Iterable

from reprise import protocol
from reprise.connection import whole_number
from reprise.keys import root_key
from reprise.link_life import LinkLife
from reprise.pending import (
    Pending,
    PendingClear,
    PendingCommit,
    PendingLoad,
    PendingLookup,
    PendingPrefetch,
    PendingReserve,
    PendingStats,
)
from reprise.protocol import MAX_REQUEST_TOKENS
from reprise.tokens import TokenBuffer, token_bytes, token_bytes_each


class CacheLink(LinkLife):
    """A session of one guest (one rank of one engine) with the cache that listens on `socket_path`.

    `slot_bytes`: for each of the space's groups, payload bytes of a full chunk of one rank, the same for all guests of
    a space.
    `token`: what the cache asks for; "" when it asks for nothing.
    `ping_seconds`: an idle cache is asked for a sign of life this often by `poll`, and given up when it gives none for
    as long. `handshake_seconds`: how long the handshake may take.
    `registers_pool`: the pool will be registered with a device: it does not shrink while this link stands.
    `tenant`: whose share of the memory all texts of this link take; unless given, each salt has a share of its own.
    `model`: what people call the model, for `reprise inspect`. It identifies nothing.
    `outgoing_limit_bytes`: what may wait in this process for a cache that reads slowly; beyond it requests are refused.

    Salts and adapters are any texts: what a text is stored under is their digest.

    The constructor opens nothing: the first `poll` or `connect` does. Raises TypeError when the space is malformed, and
    RepriseError BAD_REQUEST when a text in it, the token or `model` is longer than a message holds, and when
    `slot_bytes` has not as many entries as the space has groups.
    """

    #: Whose key was asked for last, and it.
    _last_root: tuple[str, str, bytes] | None = None

    def lookup(
        self,
        tokens: TokenBuffer,
        salt: str = "",
        adapter: str = "",
        deadline_ms: float = 1000,
        compute_ms_per_token: float | None = None,
        awaited: bool = False,
    ) -> PendingLookup | None:
        """How much of `tokens` (u32 LE) is stored, and where. Moves nothing. None: not sent, count it as a miss.

        `compute_ms_per_token`: what computing a token costs. The answer then says how much is worth loading.
        `awaited`: somebody is storing the text elsewhere just now. Others (shared stores) are asked until they have all
        of it, or the deadline is over.
        """
        compute_ns = _nanoseconds(compute_ms_per_token)
        view = _cut(tokens)
        root = self._root(salt, adapter)
        return self._ask(
            PendingLookup,
            len(view),
            deadline_ms,
            lambda id, ms: protocol.Lookup(
                id=id,
                deadline_ms=ms,
                root=root,
                tenant=self._tenant,
                tokens=view,
                compute_ns=compute_ns,
                awaited=awaited,
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

        `only_ready`: lease only the leading run of chunks that are in memory, and read nothing from disk. Their parts
        arrive in order; those that are there at the deadline may be used. With `compute_ms_per_token` they end where
        computing is expected to be faster. None: not sent, count it as a miss.
        """
        compute_ns = _nanoseconds(compute_ms_per_token)
        view = _cut(tokens)
        root = self._root(salt, adapter)
        return self._ask(
            PendingLoad,
            len(view),
            deadline_ms,
            lambda id, ms: protocol.Load(
                id=id,
                deadline_ms=ms,
                root=root,
                tenant=self._tenant,
                tokens=view,
                compute_ns=compute_ns,
                from_token=whole_number(from_token),
                only_ready=only_ready,
            ),
        )

    def prefetch(
        self, tokens: TokenBuffer, salt: str = "", adapter: str = "", deadline_ms: float = 10_000
    ) -> PendingPrefetch | None:
        """Brings what is stored of `tokens`, on this host or in a shared store, into memory. None: not sent.

        `cancel` ends it: no more is read then, and what has come stays in memory.
        """
        view = _cut(tokens)
        root = self._root(salt, adapter)
        return self._ask(
            PendingPrefetch,
            len(view),
            deadline_ms,
            lambda id, ms: protocol.Prefetch(id=id, deadline_ms=ms, root=root, tenant=self._tenant, tokens=view),
        )

    def reserve(
        self, tokens: TokenBuffer, salt: str = "", adapter: str = "", deadline_ms: float = 1000
    ) -> PendingReserve | None:
        """Asks for slots for what is not stored of `tokens`: rows, tail included, and the snapshots at their end.

        None: not sent, save nothing.
        """
        view = _cut(tokens)
        root = self._root(salt, adapter)
        return self._ask(
            PendingReserve,
            len(view),
            deadline_ms,
            lambda id, ms: protocol.Reserve(id=id, deadline_ms=ms, root=root, tenant=self._tenant, tokens=view),
        )

    def commit(self, parts: Iterable[tuple[int, int]], deadline_ms: float = 5000) -> PendingCommit | None:
        """Makes written parts visible: (lease, bytes written) of each. Fallen leases are left out.

        None when no lease is left: nothing is stored then.
        """
        return None if self._connection is None else self._connection.commit(parts, deadline_ms)

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
            self.release(part.lease for part in pending.parts)
        elif isinstance(pending, PendingReserve):
            self.abandon(part.lease for part in pending.parts)

    def holds(self, lease: int) -> bool:
        """True while the lease stands, as far as the last `poll` knew: poll after a copy, then ask."""
        return self._connection is not None and self._connection.holds(lease)

    def _root(self, salt: str, adapter: str) -> bytes:
        # A request asks several times in a row, and so do most requests after it.
        last = self._last_root
        if last is None or last[0] != salt or last[1] != adapter:
            last = self._last_root = salt, adapter, bytes.fromhex(root_key(self.space_id, salt, adapter))
        return last[2]


def _cut(tokens: TokenBuffer) -> memoryview:
    return token_bytes(tokens)[: MAX_REQUEST_TOKENS * token_bytes_each]


def _nanoseconds(compute_ms_per_token: float | None) -> int:
    """As the cost travels; 0 stands for "not known"."""
    return 0 if compute_ms_per_token is None else max(1, whole_number(compute_ms_per_token * 1e6))
