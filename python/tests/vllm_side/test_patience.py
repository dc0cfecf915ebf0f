"""How long a request waits for a cache that answers late: the longer, the more there is to compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ambush import Ambush, Moment
from cache_process import Cache
from conftest import eventually
from vllm_side.simulated_guest import prompt
from vllm_side.test_load_or_compute import TimedEngine


@pytest.fixture
def ambush(folder: Path) -> Iterator[Ambush]:
    """Before a cache with room for every text here, at 256 KiB a block."""
    cache = Cache(folder, memory="512MiB", disk="1GiB")
    ambush = Ambush(cache)
    yield ambush
    ambush.close()
    cache.stop()


@pytest.mark.parametrize(
    ("ms_per_token", "loaded"),
    [
        pytest.param(100.0, 200, id="20 s of work: 100 ms are waited"),
        pytest.param(0.0001, 0, id="20 us of work: the 25 ms of the option"),
    ],
)
def test_an_answer_that_is_50_ms_late_is_waited_for_where_much_is_at_stake(
    ambush: Ambush, ms_per_token: float, loaded: int
) -> None:
    engine = TimedEngine(ambush.socket, ms_per_token, lookup_deadline_ms=25)
    engine.ask(prompt(1, 1000))  # tells it what a token costs
    text = prompt(2, 203)
    eventually(lambda: engine.ask(text) == 200)
    before = engine.counters["misses_late"]
    ambush.lay(Moment("found", late_seconds=0.05))
    assert engine.ask(text) == loaded
    assert ambush.struck()
    assert engine.counters["misses_late"] - before == (0 if loaded else 1)
    engine.links.close()
