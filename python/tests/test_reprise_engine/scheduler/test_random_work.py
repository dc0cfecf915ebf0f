"""Random work, with what may go wrong on the way: no block is used with the wrong bytes, and nothing is left behind."""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import CacheProcess
from reprise_engine.plan import StepPlan
from reprise_engine.scheduler import loads
from reprise_engine.scheduler.engine_step import EngineStep
from support.depth import seeds
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine
from test_reprise_engine.scheduler.simulated_guest import (
    GEOMETRY,
    block_refs,
    check_nothing_is_left,
    guest,
    prefetchers,
    prompt,
    work,
)


@pytest.mark.parametrize("lends_blocks", [False, True])
@pytest.mark.parametrize("reports_late", [False, True])
@pytest.mark.parametrize("seed", seeds(small=1, full=4))
def test_random_work_never_uses_a_wrong_block(
    cache: CacheProcess, seed: int, reports_late: bool, lends_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "MOST_WAITED_BYTES", 50 * GEOMETRY.block_bytes)
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=180, seed=seed)
    if lends_blocks:
        block_refs[id(counters)] = engine
    engine.worker.fails = 0.05
    engine.reports_late = reports_late
    prefetchers[id(counters)] = engine.worker
    for _ in work(engine, seed):
        pass
    assert engine.preemptions > 10
    assert engine.worker.prefetches_used > 10
    assert engine.worker.loads_begun > 10
    assert engine.worker.prefetched == {}, "what was prefetched is used or forgotten"
    assert engine.loaded_tokens > 1000
    assert counters["async_loaded_tokens"] > 1000
    check_nothing_is_left(engine, side, links, 180)


def test_a_small_pool_evicts_and_loads_from_disk_between_steps(folder: Path) -> None:
    large = replace(GEOMETRY, block_bytes=2**18)
    cache = CacheProcess(folder, memory_bytes=64 << 20, disk=True)
    side, links, counters = guest(cache, large)
    engine = SimulatedEngine(side, large, blocks=180, seed=3)
    for _ in work(engine, 3, steps=400, requests=60):
        pass
    assert counters["async_loaded_tokens"] > 0
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


@pytest.mark.parametrize("lends_blocks", [False, True])
def test_a_fault_in_planning_never_uses_a_wrong_block(
    cache: CacheProcess, monkeypatch: pytest.MonkeyPatch, lends_blocks: bool
) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=180, seed=7)
    if lends_blocks:
        block_refs[id(counters)] = engine
    rng = random.Random(7)
    plan_saves, plan_step = side._saves.plan, side.plan_step

    def unreliable(plan: StepPlan) -> None:
        if rng.random() < 0.1:
            raise RuntimeError("a fault")
        plan_saves(plan)

    def guarded(output: EngineStep) -> StepPlan:
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
