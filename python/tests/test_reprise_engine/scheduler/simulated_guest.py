"""What tests of the scheduler side share: a guest of a real cache, random work for a simulated engine, and a look at
what is left when it is over.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from conftest import CacheProcess, eventually, space
from reprise import CacheLink
from reprise_engine.counters import Counters
from reprise_engine.jobs import Geometry
from reprise_engine.options import Options
from reprise_engine.same_process import Prefetcher
from reprise_engine.scheduler.block_refs import BlockRefs
from reprise_engine.scheduler.rank_links import RankLinks
from reprise_engine.scheduler.scheduler_side import SchedulerSide
from support.hosts_of_a_store import Host
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine

GEOMETRY = Geometry(block_tokens=4, chunk_tokens=16, block_bytes=4096, ranks=1, hash_tokens=4)


def guest(
    cache: CacheProcess | Host, geometry: Geometry = GEOMETRY, **change: object
) -> tuple[SchedulerSide, RankLinks, Counters]:
    """A scheduler side on links of its own; patient, for this machine may be busy."""
    link = CacheLink(
        socket_path=cache.socket_path, space=space(chunk_tokens=16), rank=0, slot_bytes=[geometry.slot_bytes]
    )
    links = RankLinks([link])
    assert links.connect(5), link.last_error
    counters = Counters()
    options = Options(**{"lookup_deadline_ms": 500, "min_disk_tokens": 8, **change})  # type: ignore[arg-type]
    side = SchedulerSide(
        links,
        geometry,
        options,
        counters,
        prefetcher=lambda: prefetchers.get(id(counters)),
        block_refs=lambda: block_refs.get(id(counters)),
    )
    return side, links, counters


#: Who prefetches for which side, by its counters: the engines are made after the sides.
prefetchers: dict[int, Prefetcher] = {}
#: Who keeps blocks for which side.
block_refs: dict[int, BlockRefs] = {}


def prompt(seed: int, tokens: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(50) for _ in range(tokens)]


def all_answered(links: RankLinks) -> None:
    """Waits until the cache has answered everything."""

    def answered() -> bool:
        links.poll()
        return all(link.pending_requests == 0 for link in links.links)

    eventually(answered)


def work(engine: SimulatedEngine, seed: int, *, steps: int = 900, requests: int = 150) -> Iterator[int]:
    """Random requests with shared beginnings, aborts and preemptions. Yields before each step."""
    engine.preempts = 0.1
    rng = random.Random(seed)
    started = 0
    for step in range(steps):
        if started < requests and len(engine.requests) < 8 and rng.random() < 0.5:
            shared = prompt(rng.randrange(4), 300)[: rng.randrange(1, 300)]
            text = shared + prompt(1000 + started, rng.randrange(1, 30))
            engine.add(Request(f"r{started}", text, max_tokens=rng.randrange(1, 20), salt=rng.choice(["", "", "t"])))
            started += 1
        if engine.requests and rng.random() < 0.03:
            engine.abort(rng.choice(list(engine.requests.values())))
        yield step
        engine.step()
    engine.run()


def check_nothing_is_left(engine: SimulatedEngine, side: SchedulerSide, links: RankLinks, blocks: int) -> None:
    assert engine.kept.total() == 0 and not side.keeps_blocks
    assert len(engine.free) == blocks, "every block came back"
    assert side.open_jobs == 0 and side.tracked_requests == 0
    check_no_lease_is_held(links)
    links.close()


def check_no_lease_is_held(links: RankLinks) -> None:
    """Those that came late may be on their way back still; they are held by a link that stands, so they must be."""

    def leases() -> object:
        links.links[0].poll()
        pending = links.links[0].stats()
        assert pending is not None and links.links[0].wait(pending, 5)
        return pending.stats["leases"]

    eventually(lambda: leases() == 0, seconds=3)
