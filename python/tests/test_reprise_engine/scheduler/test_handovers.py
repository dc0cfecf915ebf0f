"""Prompts whose KV another connector of the engine brings: not looked for, and stored if it came in time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from conftest import CacheProcess
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine, block_content
from test_reprise_engine.scheduler.simulated_guest import (
    GEOMETRY,
    all_answered,
    block_refs,
    check_nothing_is_left,
    guest,
    prompt,
)


def promise(engine: SimulatedEngine, request: Request, until: float) -> None:
    engine.requests[request.request_id] = request
    root = engine._root(request)
    found = engine.side.match(request, 0, root=root, may_read=True, may_save=True, promised_until=until)
    assert found == (0, False)


def hand_over(engine: SimulatedEngine, request: Request, until: float) -> None:
    """All whole blocks of it, as vLLM's connector between engines does."""
    promise(engine, request, until)
    size = GEOMETRY.block_tokens
    request.num_computed_tokens = GEOMETRY.whole_blocks(request.num_tokens)
    engine._allocate(request, request.num_computed_tokens)
    for i, block in enumerate(request.blocks):
        content = block_content(request.salt, request.prompt_token_ids[: (i + 1) * size], GEOMETRY.block_bytes)
        engine.memory[block] = np.frombuffer(content, np.uint8)
    engine.side.received([request.request_id, "another"])


@pytest.mark.parametrize("late", [False, True])
def test_what_was_handed_over_is_stored_unless_it_came_late(cache: CacheProcess, late: bool) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    block_refs[id(counters)] = engine
    hand_over(engine, Request("first", prompt(1, 203), max_tokens=20), time.time() + (-1 if late else 60))
    engine.run()
    assert counters["lookups"] == 0 and counters["late_handovers"] == late
    assert (counters["saved_bytes"] > 0) is not late, "neither the prompt nor the answer"
    engine.add(Request("second", prompt(1, 203)))
    engine.run()
    assert engine.loaded_tokens == (0 if late else 200)
    check_nothing_is_left(engine, side, links, 256)


def test_of_a_handover_that_came_late_nothing_gets_around(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    block_refs[id(counters)] = engine
    first, at_once = (Request(name, prompt(1, 203), max_tokens=50) for name in ("first", "at once"))
    hand_over(engine, first, time.time() - 1)
    # In the same step, and later, others begin with its blocks: hits in the engine's own prefix cache.
    hand_over(engine, at_once, time.time() + 60)
    engine.free += at_once.blocks
    at_once.blocks = list(first.blocks)
    engine.step()
    all_answered(links)
    later = Request("later", prompt(1, 203))
    engine.requests["later"] = later
    side.match(later, 32, root=engine._root(later), may_read=True, may_save=True)
    assert at_once.blocks[:50] == first.blocks[:50]
    for _ in range(10):
        engine.step()
    at_once.blocks = at_once.blocks[50:]  # they are the other's
    engine.abort(at_once)
    engine.run()
    assert counters["saved_bytes"] == 0 and counters["late_handovers"] == 1
    check_nothing_is_left(engine, side, links, 256)


def test_a_handover_that_fails_is_looked_for(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    block_refs[id(counters)] = engine
    engine.add(Request("stored", prompt(1, 203)))
    engine.run()
    request = Request("handed over", prompt(1, 203))
    promise(engine, request, 0.0)
    engine.run()  # asks again, without the promise
    assert request.loaded_tokens == 200 and counters["late_handovers"] == 0
    check_nothing_is_left(engine, side, links, 256)
