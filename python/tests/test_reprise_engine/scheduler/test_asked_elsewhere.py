"""Texts that this host lacks and a shared store has: the request waits in the engine's queue, the engine goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from conftest import eventually, space
from reprise import CacheLink
from reprise.pool import Pool
from reprise.tokens import pack_tokens
from reprise_engine.counters import Counters
from reprise_engine.options import Options
from reprise_engine.scheduler.rank_links import RankLinks
from reprise_engine.scheduler.scheduler_side import SchedulerSide
from reprise_engine.scheduler.tracked_request import Root
from support.hosts_of_a_store import Host, HostsOfAStore
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine
from test_reprise_engine.scheduler.simulated_guest import (
    GEOMETRY,
    all_answered,
    check_nothing_is_left,
    guest,
    prompt,
    work,
)
from test_reprise_engine.scheduler.test_load_or_compute import NOTHING

BLOCKS = 1000


@dataclass
class Second:
    """An engine on the second host. Of texts 1 to 9 the store has 200 tokens, and this host nothing."""

    hosts: HostsOfAStore
    engine: SimulatedEngine
    side: SchedulerSide
    links: RankLinks
    counters: Counters

    def add(self, seed: int, *, max_tokens: int = 1, awaited: bool = False) -> Request:
        name = f"text {seed}, {time.monotonic()}"
        request = Request(name, prompt(seed, 203), max_tokens=max_tokens, awaited=awaited)
        self.engine.add(request)
        return request

    def decoding(self) -> Request:
        """A request that gets its tokens, of a text that nobody has."""
        request = self.add(50, max_tokens=200)
        while not request.output:
            self.engine.step()
        return request

    def check_nothing_is_left(self) -> None:
        check_nothing_is_left(self.engine, self.side, self.links, BLOCKS)


def engine_on(
    host: Host, *, ms_per_token: float = 100.0, **options: int
) -> tuple[SimulatedEngine, SchedulerSide, RankLinks, Counters]:
    """An engine that takes itself for one that computes so fast."""
    side, links, counters = guest(host, GEOMETRY, **options)
    side._prefill.ms_per_token, side._prefill.is_measured = ms_per_token, True
    side._prefill._learn = lambda tokens, ms: None  # type: ignore[method-assign]
    engine = SimulatedEngine(side, GEOMETRY, blocks=BLOCKS, seed=1)
    engine.step_tokens = 300
    return engine, side, links, counters


@pytest.fixture
def hosts(folder: Path) -> Iterator[HostsOfAStore]:
    hosts = HostsOfAStore(folder)
    engine, _, links, _ = engine_on(hosts.first)
    for seed in range(1, 10):
        engine.add(Request(f"{seed}", prompt(seed, 203), max_tokens=1))
        engine.run()
    all_answered(links)
    links.close()
    hosts.flush()
    yield hosts
    hosts.stop()


@pytest.fixture
def second(hosts: HostsOfAStore) -> Second:
    return Second(hosts, *engine_on(hosts.second))


def test_a_request_alone_waits_without_a_question_more_and_is_loaded(second: Second) -> None:
    second.hosts.hold()
    request = second.add(1)
    for _ in range(20):
        second.engine.step()
        assert request.state == "waiting"
    assert second.hosts.asked == 1
    second.hosts.open()
    second.engine.run()
    assert second.engine.loaded_tokens == 200
    assert second.hosts.asked == 1
    assert second.counters["asked_elsewhere"] == 1 and second.counters["asked_elsewhere_late"] == 0
    second.check_nothing_is_left()


def test_meanwhile_others_get_their_tokens_and_newcomers_are_answered(
    second: Second, monkeypatch: pytest.MonkeyPatch
) -> None:
    second.engine.add(Request("known here", prompt(60, 203), max_tokens=1))
    second.engine.run()
    decoding = second.decoding()
    asked = second.counters["asked_elsewhere"]
    second.hosts.hold()
    waiting = [second.add(seed) for seed in (1, 2, 3)]
    known = Request("known here, again", prompt(60, 203), max_tokens=1)
    second.engine.add(known)
    before = len(decoding.output)
    waited: list[float] = []
    monkeypatch.setattr(second.links, "wait_for", lambda lookup, seconds: waited.append(seconds))
    for _ in range(20):
        second.engine.step()
    assert waited == [], "an engine with something to do never stands still for a store"
    monkeypatch.undo()
    assert len(decoding.output) == before + 20
    assert [request.state for request in waiting] == ["waiting"] * 3
    assert known.state == "finished" and known.loaded_tokens == 200
    second.hosts.open()
    while any(request.state == "waiting" for request in waiting):
        second.engine.step()
    second.engine.abort(decoding)
    second.engine.run()
    assert [request.loaded_tokens for request in waiting] == [200] * 3
    assert second.counters["asked_elsewhere"] - asked == 3 and second.counters["misses_late"] == 0
    second.check_nothing_is_left()


def test_what_is_on_this_host_is_loaded_in_the_first_step_whatever_the_store_does(second: Second) -> None:
    second.add(1)
    second.engine.run()
    second.hosts.hold()
    asked = second.hosts.asked
    text = prompt(1, 203)[:200]
    request = Request("the same", [*text, 7, 7, 7], max_tokens=1)
    second.engine.add(request)
    second.engine.step()
    assert request.loaded_tokens == 200
    assert second.hosts.asked == asked
    second.engine.run()
    second.check_nothing_is_left()


def test_a_store_that_does_not_answer_costs_its_deadline_once(hosts: HostsOfAStore) -> None:
    second = Second(hosts, *engine_on(hosts.second, shared_deadline_ms=150))
    hosts.hold()
    began = time.monotonic()
    request = second.add(1)
    second.engine.run()
    assert 0.15 <= time.monotonic() - began < 5
    assert request.loaded_tokens == 0
    assert second.counters["asked_elsewhere"] == second.counters["asked_elsewhere_late"] == 1
    second.check_nothing_is_left()


@pytest.mark.parametrize("is_busy", [False, True])
def test_nobody_waits_longer_than_computing_takes(hosts: HostsOfAStore, is_busy: bool) -> None:
    second = Second(hosts, *engine_on(hosts.second, ms_per_token=0.1))
    decoding = second.decoding() if is_busy else None
    hosts.hold()
    request = second.add(1)
    began = time.monotonic()
    while request.state == "waiting":
        second.engine.step()
    assert time.monotonic() - began < 0.5  # 20 ms of computing
    assert request.loaded_tokens == 0
    if decoding is not None:
        second.engine.abort(decoding)
    second.engine.run()
    second.check_nothing_is_left()


def test_with_no_deadline_nobody_is_waited_for(hosts: HostsOfAStore) -> None:
    second = Second(hosts, *engine_on(hosts.second, shared_deadline_ms=0))
    hosts.hold()
    request = second.add(1)
    second.engine.step()
    assert request.state == "finished" and request.loaded_tokens == 0
    assert second.counters["asked_elsewhere"] == 0
    second.engine.run()
    second.check_nothing_is_left()


@pytest.mark.parametrize("is_busy", [False, True])
@pytest.mark.parametrize("what", ["abort", "reset", "preempt others"])
def test_while_the_store_is_asked(second: Second, what: str, is_busy: bool) -> None:
    decoding = second.decoding() if is_busy else None
    second.hosts.hold()
    request = second.add(1)
    for _ in range(3):
        second.engine.step()
    assert request.state == "waiting"
    if what == "abort":
        second.engine.abort(request)
    elif what == "reset":
        assert second.engine.exchange_weights() is True
    else:
        second.engine.preempts = 0.5
    for _ in range(20):
        second.engine.step()
    second.hosts.open()
    second.engine.preempts = 0.0
    if decoding is not None and decoding.state != "finished":
        second.engine.abort(decoding)
    second.engine.run()
    assert request.loaded_tokens == (200 if what == "preempt others" else 0)
    second.check_nothing_is_left()


def test_a_cache_that_dies_while_it_asks_is_a_miss(second: Second) -> None:
    second.hosts.hold()
    request = second.add(1)
    for _ in range(3):
        second.engine.step()
    second.hosts.kill()
    second.engine.run()
    assert request.state == "finished" and request.loaded_tokens == 0
    assert second.counters["misses_link_down"] + second.counters["misses_refused"] == 1
    assert second.side.tracked_requests == 0 and len(second.engine.free) == BLOCKS
    second.links.close()


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_text_that_is_being_stored_elsewhere_is_waited_for(second: Second, is_busy: bool) -> None:
    decoding = second.decoding() if is_busy else None
    lookup = second.links.lookup(pack_tokens(prompt(21, 200)), "", "", deadline_ms=1000)
    assert lookup is not None and second.links.wait_for(lookup, 5), "the store says that it lacks it: believed for 5 s"
    request = second.add(21, awaited=True)
    for _ in range(10):
        second.engine.step()
    assert request.state == "waiting"
    writer, side, links, _ = engine_on(second.hosts.first)
    writer.add(Request("first", prompt(21, 203), max_tokens=1))
    writer.run()
    all_answered(links)
    check_nothing_is_left(writer, side, links, BLOCKS)
    while request.state == "waiting":
        second.engine.step()
    if decoding is not None:
        second.engine.abort(decoding)
    second.engine.run()
    assert request.loaded_tokens == 200
    assert second.counters["asked_elsewhere_late"] == 0
    second.check_nothing_is_left()


def test_a_text_that_is_awaited_and_does_not_come_is_computed(hosts: HostsOfAStore) -> None:
    second = Second(hosts, *engine_on(hosts.second, shared_deadline_ms=200))
    asked, began = hosts.asked, time.monotonic()
    request = second.add(22, awaited=True)
    second.engine.run()
    assert 0.15 <= time.monotonic() - began < 5
    assert request.state == "finished" and request.loaded_tokens == 0
    assert 2 <= hosts.asked - asked <= 6, "pauses become longer"
    second.check_nothing_is_left()


def test_of_a_text_that_ends_with_a_block_all_but_the_last_block_is_loaded(second: Second) -> None:
    """Its store knows it by its end, and an engine computes its last token anew."""
    writer, side, links, _ = engine_on(second.hosts.first)
    writer.add(Request("first", prompt(23, 204), max_tokens=1))
    writer.run()
    all_answered(links)
    check_nothing_is_left(writer, side, links, BLOCKS)
    second.hosts.flush()
    request = Request("second", prompt(23, 204), max_tokens=1)
    second.engine.add(request)
    second.engine.run()
    assert request.loaded_tokens == 200
    second.check_nothing_is_left()


def test_random_work_while_the_store_answers_and_does_not(hosts: HostsOfAStore) -> None:
    writer, side, links, _ = engine_on(hosts.first)
    for _ in work(writer, 3, steps=300, requests=60):
        pass
    all_answered(links)
    check_nothing_is_left(writer, side, links, BLOCKS)
    hosts.flush()
    second = Second(hosts, *engine_on(hosts.second, shared_deadline_ms=40))
    for step in work(second.engine, 3, steps=600, requests=100):
        if step % 40 == 10:
            hosts.hold()
        elif step % 40 == 25:
            hosts.open()
    hosts.open()
    assert second.counters["asked_elsewhere"] > 5 and second.counters["async_loaded_tokens"] > 500
    second.check_nothing_is_left()


def test_of_several_ranks_one_asks_and_all_load(hosts: HostsOfAStore) -> None:
    def links_to(socket_path: str) -> RankLinks:
        of_two = space(chunk_tokens=16, tensor_parallel=2)
        links = RankLinks(
            [
                CacheLink(socket_path=socket_path, space=of_two, rank=rank, slot_bytes=[GEOMETRY.slot_bytes])
                for rank in range(2)
            ]
        )
        assert links.connect(5)
        return links

    text = prompt(1, 203)
    first = links_to(hosts.first.socket_path)
    pool = Pool(first.links[0].pool_path, first.links[0].pool_bytes)
    for link in first.links:
        reserved = link.reserve(pack_tokens(text[:200]))
        assert reserved is not None and link.wait(reserved, 5)
        for part in reserved.parts:
            pool.slot(part.offset, part.bytes)[:] = bytes(part.bytes)
        committed = link.commit([(part.lease, part.bytes) for part in reserved.parts])
        assert committed is not None and link.wait(committed, 5) and not committed.failed
    pool.close()
    first.close()
    hosts.flush()

    links, asked = links_to(hosts.second.socket_path), hosts.asked
    options = Options(lookup_deadline_ms=500, min_disk_tokens=8)
    side = SchedulerSide(links, replace(GEOMETRY, ranks=2), options, Counters())
    request = Request("asked", text)

    def match() -> tuple[int | None, bool]:
        side.plan_step(NOTHING)
        return side.match(request, 0, root=Root("", ""), may_read=True, may_save=False)

    hosts.hold()
    assert [match() for _ in range(5)] == [(None, False)] * 5
    hosts.open()
    eventually(lambda: match() == (200, True))
    assert hosts.asked == asked + 1
    side.finished(request, [])
    all_answered(links)
    links.close()
