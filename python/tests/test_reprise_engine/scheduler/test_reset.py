"""Weights that are exchanged in a running engine: no KV of the old ones is used under the new, nor the reverse."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from conftest import CacheProcess
from reprise_engine.scheduler import loads
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine
from test_reprise_engine.scheduler.simulated_guest import (
    GEOMETRY,
    all_answered,
    block_refs,
    check_nothing_is_left,
    guest,
    prefetchers,
    prompt,
    work,
)


@pytest.mark.parametrize(
    ("seed", "reports_late", "lends_blocks"), [(0, False, False), (1, True, False), (2, False, True), (3, True, True)]
)
def test_whenever_weights_are_exchanged_no_block_of_others_is_used_or_stored(
    folder: Path, seed: int, reports_late: bool, lends_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "MOST_WAITED_BYTES", 10 * GEOMETRY.block_bytes)
    cache = CacheProcess(folder)
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=180, seed=seed)
    if lends_blocks:
        block_refs[id(counters)] = engine
    engine.worker.fails = 0.05
    engine.reports_late = reports_late
    prefetchers[id(counters)] = engine.worker
    rng = random.Random(seed)
    resets = slow_before = 0
    for _ in work(engine, seed, steps=400):
        if rng.random() < 0.03:
            slow_before += counters["async_loaded_tokens"]
            engine.exchange_weights()
            resets += 1
    assert resets > 5 and slow_before > 0 and engine.loaded_tokens > 0
    check_nothing_is_left(engine, side, links, 180)

    # Whoever has the first weights still finds what they have computed, and nothing else under their name.
    side, links, _ = guest(cache)
    first = SimulatedEngine(side, GEOMETRY, blocks=180, seed=seed)
    for _ in work(first, seed, steps=200, requests=40):
        pass
    check_nothing_is_left(first, side, links, 180)
    cache.stop()


def test_a_reset_is_a_miss_once_and_hits_again_with_what_is_computed_after_it(cache: CacheProcess) -> None:
    side, links, _ = guest(cache, save="prompt")
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)

    def loaded(name: str) -> int:
        before = engine.loaded_tokens
        engine.add(Request(name, prompt(1, 203)))
        engine.run()
        return engine.loaded_tokens - before

    assert [loaded("a"), loaded("b")] == [0, 192]
    assert engine.exchange_weights()
    assert [loaded("c"), loaded("d")] == [0, 192]
    assert engine.exchange_weights()
    assert [loaded("e"), loaded("f")] == [0, 192]
    check_nothing_is_left(engine, side, links, 256)


def test_after_a_reset_a_new_connection_still_misses_what_is_old(folder: Path) -> None:
    cache = CacheProcess(folder, disk=True)
    side, links, _ = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    engine.add(Request("first", prompt(1, 203)))
    engine.run()
    assert engine.exchange_weights()
    cache.stop()
    cache = CacheProcess(folder, disk=True)
    assert links.connect(10)
    engine.add(Request("second", prompt(1, 203)))
    engine.run()
    assert engine.loaded_tokens == 0
    check_nothing_is_left(engine, side, links, 256)
    cache.stop()


def test_a_reset_while_a_load_is_under_way_is_refused_and_its_blocks_are_computed(cache: CacheProcess) -> None:
    side, links, _ = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    engine.add(Request("first", prompt(1, 203)))
    engine.run()
    for name in ("second", "third"):  # two: what is loaded for one of them holds up no other
        engine.add(Request(name, prompt(1, 203)))
    side._loads._most_waited_tokens = 0
    engine.step()
    assert {request.state for request in engine.requests.values()} == {"remote"}
    assert engine.exchange_weights() is False
    engine.run()
    assert engine.loaded_tokens == 0
    assert engine.exchange_weights() is True
    check_nothing_is_left(engine, side, links, 256)


def test_a_reset_lets_go_of_blocks_that_wait_to_be_saved(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    block_refs[id(counters)] = engine
    engine.step_tokens = 1000
    engine.add(Request("first", prompt(1, 203), max_tokens=1))
    engine.step()
    assert engine.kept.total() > 0
    engine.exchange_weights()
    assert engine.kept.total() == 0 and not side.keeps_blocks
    all_answered(links)
    engine.run()
    assert counters["saved_bytes"] == 0
    check_nothing_is_left(engine, side, links, 256)


def test_what_begins_with_hits_in_a_cache_that_vllm_did_not_empty_is_not_stored(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    for pool_is_empty, stored in ((False, False), (True, True)):
        side.reset(pool_is_empty=pool_is_empty)
        saved = counters["saved_bytes"]
        request = Request(f"hits, {pool_is_empty}", prompt(1, 203))
        engine.add(request)
        side.match(request, 32, root=engine._root(request), may_read=True, may_save=True)
        engine.run()
        assert (counters["saved_bytes"] > saved) == stored
    check_nothing_is_left(engine, side, links, 256)
