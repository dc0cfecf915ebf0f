"""The links of all ranks of one engine, asked as one.

A chunk has one part per rank (the spaces of these engines have one group of rows), so the scheduler side holds a
session for each: what it loads or reserves counts as far as every rank has it. Leases are the links' affair (each knows
its connections); the *epoch* of all of them changes whenever any link's does, and with it the pool.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from reprise.link import CacheLink
from reprise.link_life import GRACE_SECONDS, LinkState
from reprise.pending import PendingLoad, PendingLookup, PendingReserve
from reprise.rows import LoadedPart, ReservedPart
from reprise.tokens import TokenBuffer
from reprise_engine.plan import PoolRef

#: Links of which no answer is awaited are polled this often at most: a poll is a system call on each, and a step that
#: only decodes takes 5 ms. The leases' 4 s become so much shorter.
REST_SECONDS = 0.05

#: Leases by rank: [rank][chunk].
RankLeases = list[list[int]]


class RankedLoad:
    """One load, under way on every rank's link. Chunks count as far as every rank has the same ones."""

    def __init__(self, links: RankLinks, loads: Sequence[PendingLoad]) -> None:
        self._links = links
        self._loads = loads
        self.epoch = links.epoch

    @property
    def done(self) -> bool:
        return all(load.done for load in self._loads)

    @property
    def failed(self) -> bool:
        """Some rank's load ended late, refused or with its connection; what came by then may be used."""
        return any(load.failed for load in self._loads)

    @property
    def hit_tokens(self) -> int:
        """Tokens from the start of the text that are stored, wherever."""
        return min(load.hit_tokens for load in self._loads)

    @property
    def worth_tokens(self) -> int:
        """Of these, those that are faster to load than to compute."""
        return min(load.worth_tokens for load in self._loads)

    @property
    def more(self) -> bool:
        """Others may have more of the text than this host."""
        return any(load.more for load in self._loads)

    @property
    def rows(self) -> int:
        """Chunks that every rank has."""
        return min(len(load.parts) for load in self._loads)

    def chunks(self, begin: int, end: int) -> list[list[LoadedPart]]:
        """[rank][chunk], chunks `begin` to `end`."""
        return [load.parts[begin:end] for load in self._loads]

    def wait(self, seconds: float) -> bool:
        """Waits until all chunks are there. False when the time was up before."""
        return self._links.wait(self._loads, seconds)

    def cancel(self) -> None:
        """Gives back what came, and what still comes."""
        for link, load in zip(self._links.links, self._loads, strict=True):
            link.cancel(load)

    def release_after(self, rows: int) -> None:
        """Gives back the chunks after the first `rows`, and stops what is still to come."""
        for link, load in zip(self._links.links, self._loads, strict=True):
            kept = load.parts[:rows]
            del load.parts[:rows]
            link.cancel(load)
            load.parts[:] = kept


class RankedReserve:
    """One reservation, under way on every rank's link."""

    def __init__(self, links: RankLinks, reserves: Sequence[PendingReserve]) -> None:
        self._links = links
        self._reserves = reserves
        self.epoch = links.epoch

    @property
    def done(self) -> bool:
        # Asked in every step until it is; with one rank, as nearly always, without a generator.
        return self._reserves[0].done and (len(self._reserves) == 1 or all(reserve.done for reserve in self._reserves))

    @property
    def tokens(self) -> int:
        """Of the chunks that the first rank may write."""
        return sum(part.token_count for part in self._reserves[0].parts)

    def take(self) -> list[list[ReservedPart]]:
        """[rank][chunk]: the chunks that every rank may write; the others are given back."""
        common = set.intersection(*({part.first_token for part in reserve.parts} for reserve in self._reserves))
        taken: list[list[ReservedPart]] = []
        for link, reserve in zip(self._links.links, self._reserves, strict=True):
            if len(common) < len(reserve.parts):
                link.abandon([part.lease for part in reserve.parts if part.first_token not in common])
            taken.append([part for part in reserve.parts if part.first_token in common])
        return taken

    def cancel(self) -> None:
        for link, reserve in zip(self._links.links, self._reserves, strict=True):
            link.cancel(reserve)


class RankLinks:
    """One `CacheLink` per rank, in order of the ranks."""

    def __init__(self, links: Sequence[CacheLink]) -> None:
        self.links = list(links)
        #: Grows when any of the connections is another one than before.
        self.epoch = 0
        #: Every rank's link stands, on one pool.
        self.up = False
        #: Where `up`.
        self.pool: PoolRef | None = None
        #: Epoch and state of each link, as of the last look.
        self._seen: list[tuple[int, LinkState]] = []
        #: time.monotonic() until which there is nothing to look for; 0.0 while an answer is awaited.
        self._rest_until = 0.0

    @property
    def leases_until(self) -> float:
        """time.monotonic() until which the leases held now stand, whatever happens to the connections."""
        return min(link.last_good for link in self.links) + GRACE_SECONDS

    def poll(self) -> None:
        """Called in every step. Most of them follow no question: then it mostly does nothing."""
        now = time.monotonic()
        if now < self._rest_until:
            return
        for link in self.links:
            link.poll()
        awaited = any(link.pending_requests for link in self.links)
        self._rest_until = 0.0 if awaited else now + REST_SECONDS
        self._look()

    def connect(self, seconds: float) -> bool:
        """Waits until every link is up. False when the time was up before."""
        for link in self.links:
            link.connect(seconds)
        self._look()
        return self.up

    def load(
        self,
        tokens: TokenBuffer,
        salt: str,
        adapter: str,
        *,
        from_token: int,
        only_ready: bool,
        deadline_ms: int,
        compute_ms_per_token: float | None = None,
    ) -> RankedLoad | None:
        """None: refused, which is a miss."""
        self._rest_until = 0.0
        loads: list[PendingLoad] = []
        for link in self.links:
            load = link.load(tokens, salt, adapter, from_token, only_ready, deadline_ms, compute_ms_per_token)
            if load is None:
                for asked, started in zip(self.links, loads, strict=False):
                    asked.cancel(started)
                return None
            loads.append(load)
        return RankedLoad(self, loads)

    def lookup(
        self,
        tokens: TokenBuffer,
        salt: str,
        adapter: str,
        *,
        deadline_ms: int,
        compute_ms_per_token: float | None = None,
        awaited: bool = False,
    ) -> PendingLookup | None:
        """How much is stored; a chunk counts when all ranks have it, so one of them is asked. None: refused."""
        self._rest_until = 0.0
        return self.links[0].lookup(tokens, salt, adapter, deadline_ms, compute_ms_per_token, awaited)

    def wait_for_word(self, lookup: PendingLookup, seconds: float) -> bool:
        """Waits until a lookup is answered, or others are asked for it. False when the time was up before."""
        return self.links[0].wait_for_word(lookup, seconds)

    def stop_asking(self, lookup: PendingLookup) -> None:
        """Nobody waits for a lookup's answer any more."""
        self.links[0].cancel(lookup)

    def wait_for(self, lookup: PendingLookup, seconds: float) -> bool:
        """Waits for a lookup's answer. False when the time was up before."""
        return self.links[0].wait(lookup, seconds)

    def reserve(self, tokens: TokenBuffer, salt: str, adapter: str, *, deadline_ms: int) -> RankedReserve | None:
        """None: refused; nothing is saved."""
        self._rest_until = 0.0
        reserves: list[PendingReserve] = []
        for link in self.links:
            reserve = link.reserve(tokens, salt, adapter, deadline_ms)
            if reserve is None:
                for asked, started in zip(self.links, reserves, strict=False):
                    asked.cancel(started)
                return None
            reserves.append(reserve)
        return RankedReserve(self, reserves)

    def commit(self, leases: RankLeases, bytes_written: Sequence[int]) -> None:
        """Makes chunks visible. `bytes_written`: the payload's length of each chunk, the same on every rank."""
        self._rest_until = 0.0
        for link, ours in zip(self.links, leases, strict=True):
            link.commit(list(zip(ours, bytes_written, strict=True)))

    def release(self, leases: RankLeases) -> None:
        for link, ours in zip(self.links, leases, strict=True):
            link.release(ours)

    def abandon(self, leases: RankLeases) -> None:
        for link, ours in zip(self.links, leases, strict=True):
            link.abandon(ours)

    def close(self) -> None:
        for link in self.links:
            link.close()

    def wait(self, loads: Sequence[PendingLoad], seconds: float) -> bool:
        in_time = [link.wait(load, seconds) for link, load in zip(self.links, loads, strict=True)]
        return all(in_time)

    def _look(self) -> None:
        seen = [(link.epoch, link.state) for link in self.links]
        if seen == self._seen:
            return
        if [epoch for epoch, _ in seen] != [epoch for epoch, _ in self._seen]:
            self.epoch += 1
        self._seen = seen
        first = self.links[0]
        pools = {(link.pool_path, link.pool_bytes) for link in self.links}
        self.up = len(pools) == 1 and all(state == "up" for _, state in seen)
        self.pool = None
        if self.up:
            self.pool = PoolRef(self.epoch, first.pool_path, first.pool_bytes, first.pool_capacity_bytes)
