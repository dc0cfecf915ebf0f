"""The scheduler side against a real cache and an engine that checks every block it uses."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import CacheProcess, eventually, space
from reprise import CacheLink
from reprise_vllm.counters import Counters
from reprise_vllm.jobs import Geometry
from reprise_vllm.options import Options
from reprise_vllm.pins import BlockPins
from reprise_vllm.plan import LoadJob, StepPlan, WorkerReport
from reprise_vllm.rank_links import RankLinks
from reprise_vllm.same_process import Prefetcher
from reprise_vllm.scheduler_side import SchedulerSide
from reprise_vllm.tracked_request import Root
from vllm_side.simulated_engine import Request, SimulatedEngine

GEOMETRY = Geometry(block_tokens=4, chunk_tokens=16, block_bytes=4096, ranks=1, hash_tokens=4)


def guest(
    cache: CacheProcess, geometry: Geometry = GEOMETRY, **change: object
) -> tuple[SchedulerSide, RankLinks, Counters]:
    """A scheduler side on links of its own; patient, for this machine may be busy."""
    link = CacheLink(
        socket_path=cache.socket_path, space=space(chunk_tokens=16), rank=0, slot_bytes=geometry.slot_bytes
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
        pins=lambda: pins.get(id(counters)),
    )
    return side, links, counters


#: Who prefetches for which side, by its counters: the engines are made after the sides.
prefetchers: dict[int, Prefetcher] = {}
#: Who keeps blocks for which side.
pins: dict[int, BlockPins] = {}


@pytest.fixture
def engine(cache: CacheProcess) -> Iterator[SimulatedEngine]:
    side, links, _ = guest(cache)
    yield SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    links.close()


def prompt(seed: int, tokens: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(50) for _ in range(tokens)]


def all_answered(links: RankLinks) -> None:
    """Waits until the cache has answered everything."""

    def answered() -> bool:
        links.poll()
        return all(link.pending_requests == 0 for link in links.links)

    eventually(answered)


def test_a_text_that_was_computed_once_is_loaded_the_next_time(engine: SimulatedEngine) -> None:
    engine.add(Request("first", prompt(1, 203)))
    engine.run()
    assert engine.loaded_tokens == 0
    engine.add(Request("second", prompt(1, 203)))
    engine.run()
    assert engine.loaded_tokens == 200


def test_answers_are_stored_with_their_prompts(engine: SimulatedEngine) -> None:
    first = Request("first", prompt(1, 100), max_tokens=30)
    engine.add(first)
    engine.run()
    engine.add(Request("second", [*first.all_token_ids, 1, 2, 3]))
    engine.run()
    assert engine.loaded_tokens == 128


def test_an_ended_request_keeps_only_the_blocks_that_are_not_saved_yet(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    pins[id(counters)] = engine
    request = Request("first", prompt(1, 100), max_tokens=20)
    engine.add(request)
    while not request.output:
        engine.step()
    all_answered(links)
    for _ in range(10):
        engine.step()
    assert counters["saved_bytes"] > 0 and side.open_jobs == 0
    while request.state == "running":
        engine.step()
    assert engine.pinned.total() == (116 - 96) // 4, "six chunks of 16 tokens were saved before"
    engine.run()
    engine.add(Request("second", [*request.all_token_ids, 1, 2, 3]))
    engine.run()
    assert engine.loaded_tokens == 116
    check_nothing_is_left(engine, side, links, 256)


def test_a_request_that_is_preempted_and_aborted_while_it_is_saved_keeps_nothing(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    pins[id(counters)] = engine
    engine.reports_late = True
    request = Request("first", prompt(1, 100), max_tokens=20)
    engine.add(request)
    while not request.output:
        engine.step()
    all_answered(links)
    engine.step()
    assert side.open_jobs == 1
    engine.preempts, engine.step_tokens = 1.0, 0
    engine.step()
    assert side.open_jobs == 1 and not request.blocks, "copied out, and not reported yet"
    engine.abort(request)
    engine.run()
    assert counters["saved_bytes"] > 0
    check_nothing_is_left(engine, side, links, 256)


def test_what_the_requests_of_a_step_save_is_one_job(cache: CacheProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    side, links, _ = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    engine.step_tokens = 1000
    saves: list[int] = []
    begin_step = engine.worker.begin_step

    def seen(plan: StepPlan) -> None:
        saves.extend(len(save.slot_offsets[0]) for save in plan.saves)
        begin_step(plan)

    monkeypatch.setattr(engine.worker, "begin_step", seen)
    for i in range(4):
        engine.add(Request(f"r{i}", prompt(i, 103), max_tokens=2))
    engine.step()
    all_answered(links)
    engine.step()
    assert saves == [4 * 6], "six whole chunks of each prompt"
    engine.run()
    for i in range(4):
        engine.add(Request(f"again {i}", prompt(i, 103)))
    engine.run()
    assert engine.loaded_tokens == 4 * 100
    links.close()


def test_salts_separate_texts(engine: SimulatedEngine) -> None:
    engine.add(Request("first", prompt(1, 100), salt="a"))
    engine.run()
    engine.add(Request("second", prompt(1, 100), salt="b"))
    engine.run()
    assert engine.loaded_tokens == 0


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
    assert engine.pinned.total() == 0 and not side.keeps_blocks
    assert len(engine.free) == blocks, "every block came back"
    assert side.open_jobs == 0 and side.tracked_requests == 0
    stats = links.links[0].stats()
    assert stats is not None and links.links[0].wait(stats, 5)
    assert stats.stats["leases"] == 0
    links.close()


@pytest.mark.parametrize("lends_blocks", [False, True])
@pytest.mark.parametrize("reports_late", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_random_work_never_uses_a_wrong_block(
    cache: CacheProcess, seed: int, reports_late: bool, lends_blocks: bool
) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=180, seed=seed)
    if lends_blocks:
        pins[id(counters)] = engine
    engine.worker.fails = 0.05
    engine.reports_late = reports_late
    prefetchers[id(counters)] = engine.worker
    for _ in work(engine, seed):
        pass
    assert engine.preemptions > 10
    assert engine.worker.prefetches_used > 10
    assert engine.worker.prefetched == {}, "what was prefetched is used or forgotten"
    assert engine.loaded_tokens > 1000
    check_nothing_is_left(engine, side, links, 180)


def test_a_small_pool_evicts_and_loads_from_disk_between_steps(folder: Path) -> None:
    large = replace(GEOMETRY, block_bytes=2**18)
    cache = CacheProcess(folder, memory_bytes=64 << 20, disk=True)
    side, links, counters = guest(cache, large)
    engine = SimulatedEngine(side, large, blocks=180, seed=3)
    for _ in work(engine, 3, steps=400, requests=60):
        pass
    assert counters["slowly_loaded_tokens"] > 0
    check_nothing_is_left(engine, side, links, 180)
    cache.stop()


def test_a_cache_that_dies_and_comes_back_costs_hits_and_nothing_else(folder: Path) -> None:
    cache = CacheProcess(folder)
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=180, seed=5)
    prefetchers[id(counters)] = engine.worker
    before = 0
    for step in work(engine, 5):
        if step == 300:
            cache.kill()
            before = engine.loaded_tokens
        if step == 400:
            cache = CacheProcess(folder)
            assert links.connect(5)
    assert before > 0 and engine.loaded_tokens > before
    assert engine.worker.prefetched == {}
    assert counters["misses_link_down"] > 0
    check_nothing_is_left(engine, side, links, 180)
    cache.stop()


class Recorder:
    """A prefetcher that keeps what it was told."""

    def __init__(self) -> None:
        self.begun: list[LoadJob] = []
        self.forgotten: list[int] = []

    def prefetch(self, job: LoadJob) -> None:
        self.begun.append(job)

    def forget(self, job_id: int) -> None:
        self.forgotten.append(job_id)


def test_a_claim_is_prefetched_once_and_forgotten_when_it_is_not_taken_up(
    cache: CacheProcess, engine: SimulatedEngine
) -> None:
    engine.add(Request("first", prompt(1, 203)))
    engine.run()
    side, links, counters = guest(cache)
    recorder = prefetchers[id(counters)] = Recorder()
    root = Root("", "")

    def match(name: str, computed: int = 0) -> Request:
        request = Request(name, prompt(1, 203))
        assert side.match(request, computed, root=root, may_read=True, may_save=True) == (200 - computed, False)
        return request

    aborted = match("aborted")
    match("aborted")
    (job,) = recorder.begun
    assert job.in_step and job.take_blocks.sum() == job.block_ids.size == 50
    side.finished(aborted, [])
    assert recorder.forgotten == [job.job_id]

    match("moved on")
    match("moved on", 32)
    assert [job.job_id for job in recorder.begun[1:2]] == recorder.forgotten[1:]
    assert recorder.begun[2].take_blocks.sum() == 42

    match("not scheduled with it")
    side.allocated("not scheduled with it", lambda: [], 0)
    assert recorder.forgotten[2:] == [recorder.begun[3].job_id]

    match("taken up")
    side.allocated("taken up", lambda: list(range(100, 151)), 200)
    nothing = SimpleNamespace(
        scheduled_new_reqs=[], scheduled_cached_reqs=SimpleNamespace(req_ids=[]), num_scheduled_tokens={}
    )
    (planned,) = side.plan_step(nothing).loads
    assert planned.job_id == recorder.begun[4].job_id
    assert planned.block_ids.tolist() == list(range(100, 150))
    assert len(recorder.forgotten) == 3
    side.reported(WorkerReport(done={planned.job_id: 1}))
    assert side.open_jobs == 0
    links.close()


@pytest.mark.parametrize("lends_blocks", [False, True])
def test_a_fault_in_planning_never_uses_a_wrong_block(
    cache: CacheProcess, monkeypatch: pytest.MonkeyPatch, lends_blocks: bool
) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=180, seed=7)
    if lends_blocks:
        pins[id(counters)] = engine
    rng = random.Random(7)
    plan_saves, plan_step = side._saves.plan, side.plan_step

    def unreliable(plan: StepPlan) -> None:
        if rng.random() < 0.1:
            raise RuntimeError("a fault")
        plan_saves(plan)

    def guarded(output: object) -> StepPlan:
        try:
            return plan_step(output)
        except RuntimeError:
            return side.plan_after_fault()

    monkeypatch.setattr(side._saves, "plan", unreliable)
    monkeypatch.setattr(side, "plan_step", guarded)
    for _ in work(engine, 7):
        pass
    assert engine.loaded_tokens > 500
    check_nothing_is_left(engine, side, links, 180)


def test_a_busy_engine_asks_early_and_does_not_wait_for_a_miss(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    engine.step_tokens = 32
    for i in range(6):
        engine.add(Request(f"r{i}", prompt(i, 100)))
    time.sleep(0.1)  # as long as a real engine's step
    engine.run()
    assert counters["misses_known_early"] >= 4
    assert counters["lookups"] <= 2
    check_nothing_is_left(engine, side, links, 256)


def test_a_fault_after_an_allocation_never_uses_a_wrong_block(
    cache: CacheProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=180, seed=9)
    rng = random.Random(9)
    hand_out, allocated = side._loads._hand_out, side.allocated

    def unreliable(*arguments: Any) -> None:
        if rng.random() < 0.2:
            raise RuntimeError("a fault")
        hand_out(*arguments)

    def guarded(*arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):
            allocated(*arguments)

    monkeypatch.setattr(side._loads, "_hand_out", unreliable)
    monkeypatch.setattr(side, "allocated", guarded)
    for _ in work(engine, 9):
        pass
    assert counters["lost_loads"] > 0
    assert len(engine.free) == 180
    links.close()


def test_a_fault_at_a_requests_end_stores_no_wrong_block(cache: CacheProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    side, links, _ = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=180, seed=11)
    finished, save = side.finished, side._saves.finished

    def faulty(*_: Any) -> bool:
        raise RuntimeError("a fault")

    def guarded(*arguments: Any) -> bool:
        try:
            return finished(*arguments)
        except RuntimeError:
            return False

    monkeypatch.setattr(side, "finished", guarded)
    monkeypatch.setattr(side._saves, "finished", faulty)
    for i in range(5):
        engine.add(Request(f"first {i}", prompt(i, 200), max_tokens=1))
        engine.run()
    time.sleep(0.1)  # the cache has answered what it was asked
    for _ in range(10):
        engine.step()
    monkeypatch.setattr(side._saves, "finished", save)
    for i in range(5):
        engine.add(Request(f"second {i}", prompt(i, 200), max_tokens=1))
        engine.run()
    assert len(engine.free) == 180
    links.close()
