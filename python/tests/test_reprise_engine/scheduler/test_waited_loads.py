"""Which loads a step waits for, and which come between steps because others would wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from conftest import CacheProcess
from reprise_engine.counters import Counters
from reprise_engine.scheduler import loads
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine
from test_reprise_engine.scheduler.simulated_guest import GEOMETRY, all_answered, check_nothing_is_left, guest, prompt

BLOCKS = 1000
WAITED_TOKENS = 240


@dataclass
class Loading:
    engine: SimulatedEngine
    counters: Counters

    def ask(self, *requests: Request) -> tuple[int, int]:
        """All at once, to their ends. Tokens loaded within steps, and between them."""
        before = self._loaded()
        for request in requests:
            self.engine.add(request)
        self.engine.run()
        within, between = self._loaded()
        return within - before[0], between - before[1]

    def _loaded(self) -> tuple[int, int]:
        return self.counters["loaded_tokens"], self.counters["async_loaded_tokens"]


@pytest.fixture
def loading(cache: CacheProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loading]:
    """Texts 1 to 5 are stored, 203 tokens each, and text 9 of 403."""
    monkeypatch.setattr(loads, "MOST_WAITED_BYTES", WAITED_TOKENS // GEOMETRY.block_tokens * GEOMETRY.block_bytes + 1)
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=BLOCKS, seed=1)
    engine.step_tokens = 2000
    loading = Loading(engine, counters)
    for seed, tokens in (1, 203), (2, 203), (3, 203), (4, 203), (5, 203), (9, 403):
        assert loading.ask(text(seed, tokens)) == (0, 0)
    all_answered(links)
    yield loading
    check_nothing_is_left(engine, side, links, BLOCKS)


def text(seed: int, tokens: int = 203, *, max_tokens: int = 1) -> Request:
    return Request(f"{seed} of {tokens}", prompt(seed, tokens), max_tokens=max_tokens)


def test_a_request_that_is_alone_is_loaded_within_its_step_however_long(loading: Loading) -> None:
    assert loading.ask(text(9, 403)) == (400, 0)


def test_of_requests_that_come_together_a_step_waits_for_what_is_loaded_soon(loading: Loading) -> None:
    assert loading.ask(text(1), text(2), text(3)) == (200, 400)
    assert loading.ask(text(4), text(5)) == (200, 200), "the others are not under way any more"


def test_a_long_load_does_not_hold_up_those_who_get_tokens(loading: Loading) -> None:
    engine = loading.engine
    decoding, long = text(50, max_tokens=40), text(9, 403)
    engine.add(decoding)
    while not decoding.output:
        engine.step()
    engine.add(long)
    engine.step()
    assert long.state == "remote"
    meanwhile = len(decoding.output)
    while long.state == "remote":
        engine.step()
    assert len(decoding.output) > meanwhile
    engine.run()
    assert loading.counters["async_loaded_tokens"] == 400
    assert loading.ask(text(1)) == (200, 0)


def test_a_short_load_beside_others_is_waited_for(loading: Loading) -> None:
    decoding = text(50, max_tokens=40)
    loading.engine.add(decoding)
    while not decoding.output:
        loading.engine.step()
    assert loading.ask(text(1)) == (200, 0)
