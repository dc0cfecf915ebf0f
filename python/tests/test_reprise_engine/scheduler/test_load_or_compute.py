"""Hits that lie on disk: loaded where that beats computing, computed where it does not, chunk by chunk as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import CacheProcess, eventually, space
from reprise import CacheLink
from reprise_engine.counters import Counters
from reprise_engine.options import Options
from reprise_engine.plan import StepPlan
from reprise_engine.scheduler.rank_links import RankLinks
from reprise_engine.scheduler.scheduler_side import SchedulerSide
from reprise_engine.scheduler.tracked_request import Root
from test_reprise.test_link_and_peer import Peer, welcome
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine
from test_reprise_engine.scheduler.simulated_guest import GEOMETRY, check_nothing_is_left, prompt

#: Chunks of 1 MiB.
LARGE = replace(GEOMETRY, block_bytes=2**18)
NOTHING = SimpleNamespace(
    scheduled_new_reqs=[], scheduled_cached_reqs=SimpleNamespace(req_ids=[]), num_scheduled_tokens={}
)


class TimedEngine(SimulatedEngine):
    """Computes as fast as it is told, by the only clock that its scheduler side has; nobody waits."""

    def __init__(self, socket_path: str, ms_per_token: float, *, lookup_deadline_ms: int = 500) -> None:
        self.ms_per_token = ms_per_token
        self.ahead = 0.0
        link = CacheLink(socket_path=socket_path, space=space(chunk_tokens=16), rank=0, slot_bytes=[LARGE.slot_bytes])
        self.links = RankLinks([link])
        assert self.links.connect(5), link.last_error
        self.counters = Counters()
        options = Options(lookup_deadline_ms=lookup_deadline_ms, min_disk_tokens=8)
        began = time.monotonic()
        side = SchedulerSide(self.links, LARGE, options, self.counters, lambda: began + self.ahead)
        super().__init__(side, LARGE, blocks=1024, seed=1)
        self.step_tokens = 4096

    def step(self) -> None:
        if all(request.state == "remote" for request in self.requests.values()):
            time.sleep(0.001)  # the disk is real
        super().step()

    def _forward(self, request: Request, count: int, invalid: set[int]) -> None:
        if count > 1:
            self.ahead += count * self.ms_per_token / 1000
        super()._forward(request, count, invalid)

    def ask(self, tokens: list[int]) -> int:
        """Returns the tokens that were loaded."""
        before = self.loaded_tokens
        self.add(Request(f"r{time.monotonic()}", tokens, max_tokens=1))
        self.run()
        return self.loaded_tokens - before

    def stats(self) -> dict[str, Any]:
        stats = self.links.links[0].stats()
        assert stats is not None
        assert self.links.links[0].wait(stats, 5)
        return dict(stats.stats)


@pytest.fixture
def stored(folder: Path) -> Iterator[CacheProcess]:
    """A cache with texts 0 to 9 of 200 tokens on disk, and none of them in memory."""
    cache = CacheProcess(folder, memory_bytes=512 << 20, disk=True)
    engine = TimedEngine(cache.socket_path, 0.001)
    for seed in range(10):
        engine.ask(prompt(seed, 203))
    eventually(lambda: engine.stats()["tiers"]["disk"]["records"] >= 120)
    engine.links.close()
    cache.stop()
    cache = CacheProcess(folder, memory_bytes=512 << 20, disk=True)
    yield cache
    cache.stop()


#: Seeds of texts that nobody has asked for.
unknown = count(1000)


def know(engine: TimedEngine) -> None:
    """Text nobody knows tells the engine what a token costs it."""
    assert engine.ask(prompt(next(unknown), 1000)) == 0


def test_a_slow_engine_loads_what_is_on_disk(stored: CacheProcess) -> None:
    engine = TimedEngine(stored.socket_path, 100.0)
    know(engine)
    for seed in range(4):
        assert engine.ask(prompt(seed, 203)) == 200
    stats = engine.stats()
    assert stats["skippedTokens"] == {}
    assert stats["tiers"]["disk"]["readLatencyMs"] > 0
    (told,) = stats["engines"]
    assert told["prefillTokensPerSecond"] == pytest.approx(10, rel=0.1)
    assert engine.counters["async_loaded_tokens"] == 800
    check_nothing_is_left(engine, engine.side, engine.links, 1024)


def test_a_fast_engine_computes_what_is_on_disk_and_nothing_is_read(stored: CacheProcess) -> None:
    engine = TimedEngine(stored.socket_path, 0.0001)
    know(engine)
    for seed in (0, 9):  # nobody has read from this disk: it is tried, and the first time alone says nothing
        engine.ask(prompt(seed, 203))
    before = engine.stats()["loadedBytes"]
    for seed in range(1, 5):
        assert engine.ask(prompt(seed, 203)) == 0
    stats = engine.stats()
    assert stats["loadedBytes"] == before
    assert stats["probedChunks"] == 0
    assert engine.counters["skipped_tokens"] >= 4 * 200
    assert stats["skippedTokens"]["disk"] >= 4 * 200

    engine.ms_per_token = 100.0  # a much larger model, say
    know(engine)
    assert engine.ask(prompt(6, 203)) == 200
    check_nothing_is_left(engine, engine.side, engine.links, 1024)


def test_what_is_in_memory_is_loaded_though_its_rest_on_disk_is_computed(stored: CacheProcess) -> None:
    patient = TimedEngine(stored.socket_path, 100.0)
    know(patient)
    patient.ask(prompt(0, 203))
    patient.ask(prompt(1, 99))
    patient.links.close()
    engine = TimedEngine(stored.socket_path, 0.0001)
    know(engine)
    assert engine.ask(prompt(1, 203)) == 96
    check_nothing_is_left(engine, engine.side, engine.links, 1024)


class AskedPeer:
    """A scheduler side whose cache is the test: it finds so many tokens, all of them on disk."""

    def __init__(self, folder: Path, hit_tokens: int, *, moved_from: int | None = None) -> None:
        self.peer = Peer(folder)
        self.link = CacheLink(
            socket_path=self.peer.path, space=space(chunk_tokens=16), rank=0, slot_bytes=[GEOMETRY.slot_bytes]
        )
        self.link.poll()
        self.peer.accept()
        self.peer.write(welcome(self.link, self.peer.read(), poolBytes=2**20, poolCapacityBytes=2**20))
        links = RankLinks([self.link])
        assert links.connect(5)
        options = Options(lookup_deadline_ms=2000, min_disk_tokens=8)
        self.side = SchedulerSide(links, GEOMETRY, options, Counters())
        exact = hit_tokens if moved_from is None else moved_from
        segments = [[0, 0, 0, exact, 2], [1, 9000, exact, hit_tokens, 2]]
        self.found: dict[str, Any] = {"type": "found", "segments": segments[: 1 if moved_from is None else 2]}
        self.found |= {"worthTokens": hit_tokens, "more": False}
        # The answer lies in the socket before the question is sent: the link reads it afterwards. The first question,
        # for what is in memory, is number 2; the second, for the rest, number 3.
        self.peer.write({**self.found, "id": 2}, {"type": "loaded", "id": 2})

    def match(self, tokens: int) -> tuple[int | None, bool]:
        return self.side.match(Request("asked", prompt(1, tokens)), 0, root=Root("", ""), may_read=True, may_save=False)

    def close(self) -> None:
        self.peer.close()
        self.link.close()


def row(chunk: int, size: int, kind: int = 0) -> list[int]:
    """Chunk number `chunk` of the text, as the cache tells of its only part."""
    return [chunk + 1, 0, kind, 16 * chunk, 16, 0, 16, 16 * chunk, 2, chunk * size, size]


def test_moved_text_is_a_miss_from_there_on(folder: Path) -> None:
    asked = AskedPeer(folder, 64, moved_from=32)
    assert asked.match(70) == (32, True)
    assert len([asked.peer.read(), asked.peer.read()][1]["tokens"]) == 32 * 4
    asked.close()


def test_a_moved_chunk_that_comes_unannounced_is_not_placed(folder: Path) -> None:
    asked = AskedPeer(folder, 64)
    assert asked.match(70) == (64, True)
    asked.side.allocated("asked", lambda: list(range(18)), 64)
    parts = [row(chunk, GEOMETRY.slot_bytes, kind=int(chunk >= 2)) for chunk in range(4)]
    asked.peer.write({**asked.found, "id": 3}, {"type": "parts", "id": 3, "parts": parts}, {"type": "loaded", "id": 3})
    step = asked.side.plan_step(NOTHING)
    assert [job.block_ids.tolist() for job in step.loads] == [list(range(8))]
    assert step.finish_loads == {"asked": list(range(8, 16))}
    asked.close()


def test_an_engine_that_does_not_know_its_speed_computes_a_little_of_a_long_hit(folder: Path) -> None:
    asked = AskedPeer(folder, 6000)
    assert asked.match(6001) == (6000 - 512, True)
    first, second = asked.peer.read(), asked.peer.read()
    assert (first["onlyReady"], first["computeNs"], len(first["tokens"])) == (True, 0, 6000 * 4)
    assert (second["onlyReady"], second["computeNs"], len(second["tokens"])) == (False, 0, 5488 * 4)
    asked.close()


def test_an_engine_that_knows_its_speed_says_so_and_loads_all_that_is_worth_it(folder: Path) -> None:
    asked = AskedPeer(folder, 6000)
    asked.side._prefill.ms_per_token, asked.side._prefill.is_measured = 0.03, True
    assert asked.match(6001) == (6000, True)
    assert asked.peer.read()["computeNs"] == 30_000
    assert asked.peer.read()["computeNs"] == 0, "that it is worth it was decided"
    asked.close()


def test_a_load_that_takes_longer_than_computing_is_given_up(folder: Path) -> None:
    asked = AskedPeer(folder, 6000)
    asked.side._prefill.ms_per_token, asked.side._prefill.is_measured = 0.1, True
    now = [1000.0]
    asked.side._loads._clock = lambda: now[0]
    asked.match(6001)
    asked.side.allocated("asked", lambda: list(range(1501)), 6000)
    now[0] += 0.55
    assert asked.side.plan_step(NOTHING).finish_loads == {}
    now[0] += 0.1
    assert asked.side.plan_step(NOTHING).finish_loads == {"asked": list(range(1500))}
    asked.close()


def test_chunks_are_handed_to_the_workers_while_later_ones_are_still_read(folder: Path) -> None:
    asked = AskedPeer(folder, 64)
    side, peer = asked.side, asked.peer
    assert asked.match(70) == (64, True)
    side.allocated("asked", lambda: list(range(18)), 64)

    def arrive(chunk: int) -> None:
        size = GEOMETRY.slot_bytes
        peer.write({"type": "parts", "id": 3, "parts": [row(chunk, size)]})

    def plan() -> StepPlan:
        return side.plan_step(NOTHING)

    peer.write({**asked.found, "id": 3})
    assert plan().loads == []
    for chunk in range(3):
        arrive(chunk)
        step = plan()
        (job,) = step.loads
        assert job.block_ids.tolist() == list(range(4 * chunk, 4 * chunk + 4))
        assert step.finish_loads == {}
        assert plan().loads == [], "the next chunk is still being read"
    arrive(3)
    peer.write({"type": "loaded", "id": 3})
    step = plan()
    assert [job.block_ids.tolist() for job in step.loads] == [[12, 13, 14, 15]]
    assert step.finish_loads == {"asked": []}
    asked.close()
