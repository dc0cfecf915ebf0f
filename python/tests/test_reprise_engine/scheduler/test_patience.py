"""How long a request waits for a cache that answers late: the longer, the more there is to compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import eventually
from support.cache_process import Cache
from support.fault_proxy import FaultProxy, Moment
from test_reprise_engine.scheduler.simulated_guest import prompt
from test_reprise_engine.scheduler.test_load_or_compute import TimedEngine


@pytest.fixture
def fault_proxy(folder: Path) -> Iterator[FaultProxy]:
    """Before a cache with room for every text here, at 256 KiB a block."""
    cache = Cache(folder, memory="512MiB", disk="1GiB")
    fault_proxy = FaultProxy(cache)
    yield fault_proxy
    fault_proxy.close()
    cache.stop()


@pytest.mark.parametrize(
    ("ms_per_token", "loaded"),
    [
        pytest.param(100.0, 200, id="20 s of work: 100 ms are waited"),
        pytest.param(0.0001, 0, id="20 us of work: the 25 ms of the option"),
    ],
)
def test_an_answer_that_is_50_ms_late_is_waited_for_where_much_is_at_stake(
    fault_proxy: FaultProxy, ms_per_token: float, loaded: int
) -> None:
    engine = TimedEngine(fault_proxy.socket, ms_per_token, lookup_deadline_ms=25)
    engine.ask(prompt(1, 1000))  # tells it what a token costs
    text = prompt(2, 203)
    eventually(lambda: engine.ask(text) == 200)
    before = engine.counters["misses_late"]
    fault_proxy.arm(Moment("found", late_seconds=0.05))
    assert engine.ask(text) == loaded
    assert fault_proxy.struck()
    assert engine.counters["misses_late"] - before == (0 if loaded else 1)
    engine.links.close()
