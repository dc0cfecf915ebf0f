"""A cache that dies, or answers late, at one exact message: no wrong block, no request lost, nothing kept.

The cache is the real one, killed as a process; it comes back, adopts what it had, and is read again.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import eventually, space
from reprise import CacheLink
from reprise_engine.counters import Counters
from reprise_engine.options import Options
from reprise_engine.scheduler.rank_links import RankLinks
from reprise_engine.scheduler.scheduler_side import SchedulerSide
from support.cache_process import Cache
from support.fault_proxy import FaultProxy, Moment, deaths
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine
from test_reprise_engine.scheduler.simulated_guest import GEOMETRY, all_answered, check_no_lease_is_held, prompt

BLOCKS = 400
#: What is stored before the moment: three texts, read again at the moment with more behind them.
stored_tokens = 203
reusable_tokens = 3 * 200


@pytest.fixture(scope="module")
def cache() -> Iterator[Cache]:
    """One cache for all moments; each has texts of its own."""
    folder = Path(tempfile.mkdtemp(prefix="reprise-"))
    cache = Cache(folder, memory="64MiB", disk="256MiB")
    yield cache
    if cache.process.poll() is None:
        cache.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fault_proxy(cache: Cache) -> Iterator[FaultProxy]:
    if cache.process.poll() is not None:
        cache.start()
    fault_proxy = FaultProxy(cache)
    yield fault_proxy
    fault_proxy.close()


class DearEngine(SimulatedEngine):
    """Measures 100 ms a token: what is on disk is worth loading, however busy the machine that reads it."""

    def __init__(self, side: SchedulerSide) -> None:
        super().__init__(side, GEOMETRY, blocks=BLOCKS, seed=1)
        self.computed_seconds = 0.0
        side._prefill._clock = lambda: time.monotonic() + self.computed_seconds

    def _forward(self, request: Request, count: int, invalid: set[int]) -> None:
        self.computed_seconds += count * 0.1
        super()._forward(request, count, invalid)


def engine_behind(fault_proxy: FaultProxy, **change: object) -> tuple[SimulatedEngine, RankLinks, Counters]:
    link = CacheLink(
        socket_path=fault_proxy.socket, space=space(chunk_tokens=16), rank=0, slot_bytes=[GEOMETRY.slot_bytes]
    )
    links = RankLinks([link])
    assert links.connect(10), link.last_error
    counters = Counters()
    options = Options(**{"lookup_deadline_ms": 2000, "min_disk_tokens": 8, **change})  # type: ignore[arg-type]
    side = SchedulerSide(links, GEOMETRY, options, counters)
    return DearEngine(side), links, counters


def texts(seed: int, more: int) -> list[list[int]]:
    return [prompt(seed * 10 + i, stored_tokens) + prompt(seed * 1000 + more * 10 + i, more) for i in range(3)]


def ask(engine: SimulatedEngine, name: str, prompts: list[list[int]]) -> None:
    """All at once; ends when all are answered. Every block that is used was checked then."""
    for i, text in enumerate(prompts):
        engine.add(Request(f"{name} {i}", text))

    def stepped() -> bool:
        for _ in range(10):  # then a little time for the cache
            engine.step()
        return engine.idle

    eventually(stepped, seconds=20)


def restart(cache: Cache, links: RankLinks, text: list[int]) -> None:
    """Until `text` is found again: a cache reads in the background what it has on disk."""
    all_answered(links)  # a commit that is on its way to a cache that stops is not stored
    cache.stop()
    cache.start()
    assert links.connect(10)
    eventually(lambda: stored(links, text) >= 200, seconds=20)


def stored(links: RankLinks, text: list[int]) -> int:
    pending = links.lookup(memoryview(array("I", text)), "", "", deadline_ms=5000)
    assert pending is not None and links.links[0].wait(pending, 5)
    return pending.hit_tokens


def check_nothing_is_left(engine: SimulatedEngine, links: RankLinks) -> None:
    assert len(engine.free) == BLOCKS, "every block came back"
    assert engine.side.open_jobs == 0 and engine.side.tracked_requests == 0
    check_no_lease_is_held(links)
    links.close()


@pytest.mark.parametrize("moment", deaths, ids=str)
def test_a_cache_that_dies_at_this_moment_costs_hits_and_nothing_else(
    cache: Cache, fault_proxy: FaultProxy, moment: Moment
) -> None:
    seed = 100 + deaths.index(moment)
    engine, links, _ = engine_behind(fault_proxy)
    ask(engine, "first", texts(seed, 0))
    if moment.kind.startswith("slow"):
        restart(cache, links, texts(seed, 0)[0])

    fault_proxy.arm(moment)
    ask(engine, "at the moment", texts(seed, 60))
    assert fault_proxy.struck(), "this moment has not come"
    assert cache.process.poll() is not None

    cache.start()
    assert links.connect(10)
    before = engine.loaded_tokens
    ask(engine, "afterwards", texts(seed, 60))
    ask(engine, "again", texts(seed, 90))
    assert engine.loaded_tokens - before >= reusable_tokens, "it is used again"
    check_nothing_is_left(engine, links)


late = [
    Moment(kind, late_seconds=1.6)  # longer than any deadline here
    for kind in ("lookup", "found", "parts", "slow parts", "release", "reserved", "commit", "committed")
]


@pytest.mark.parametrize("moment", late, ids=str)
def test_a_cache_that_answers_late_at_this_moment_costs_hits_and_nothing_else(
    cache: Cache, fault_proxy: FaultProxy, moment: Moment
) -> None:
    seed = 200 + late.index(moment)
    engine, links, counters = engine_behind(fault_proxy, lookup_deadline_ms=1000, load_deadline_ms=1000)
    ask(engine, "first", texts(seed, 0))
    if moment.kind.startswith("slow"):
        restart(cache, links, texts(seed, 0)[0])
    fault_proxy.arm(moment)
    ask(engine, "at the moment", texts(seed, 60))
    assert fault_proxy.struck(), "this moment has not come"
    if moment.kind in ("found", "parts"):
        assert counters["misses_late"] > 0
    ask(engine, "afterwards", texts(seed, 60))
    check_nothing_is_left(engine, links)
