"""A real vLLM whose weights are exchanged while it runs: after a reset it answers as it would without a cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from real_vllm.harness import Engine, Prompts
from support.cache_process import Cache

#: Of a request that has nothing to do with the cache.
_apart = [{"reprise": {"read": False, "save": False}}]


@pytest.fixture
def cache() -> Iterator[Cache]:
    folder = Path(tempfile.mkdtemp(prefix="reprise-"))
    cache = Cache(folder)
    yield cache
    assert cache.stats()["leases"] == 0
    cache.stop()
    shutil.rmtree(folder, ignore_errors=True)


def answer(engine: Engine, text: list[int], **more: Any) -> tuple[list[int], int]:
    given = engine.generate([text], **more)
    return given["tokens"][0], given["cached"][0]


def test_old_kv_is_neither_loaded_under_new_weights_nor_new_kv_under_old_ones(cache: Cache, prompts: Prompts) -> None:
    engine = Engine(options={"socket": cache.socket}, enable_prefix_caching=False)
    second = Engine(options={"socket": cache.socket}, enable_prefix_caching=False)
    texts = [text for seed in (81, 82) for text, _ in prompts.about_notes(seed, 2500, 1)]
    old = [answer(engine, text)[0] for text in texts]
    engine.wait_until_idle()
    assert [answer(engine, text)[0] for text in texts] == old
    assert answer(engine, texts[0])[1] > 500

    engine.ask(op="weights", scale=1.5)
    assert engine.ask(op="reset", connector=True)["reset"] is True
    new = [answer(engine, text, params=_apart)[0] for text in texts]
    assert new != old, "these weights answer otherwise"
    assert [answer(engine, text) for text in texts] == [(tokens, 0) for tokens in new]
    engine.wait_until_idle()
    cache.stop()  # whatever connection it is
    cache.start()
    again = [answer(engine, text) for text in texts for _ in range(2)]
    assert [tokens for tokens, _ in again[::2]] == new
    engine.wait_until_idle()
    tokens, cached = answer(engine, texts[1])
    assert tokens == new[1] and cached > 500, "its own generation is reused"

    reused = 0
    for text, expected in zip(texts, old, strict=True):
        for _ in range(2):
            tokens, cached = answer(second, text)
            assert tokens == expected, "an engine with the old weights sees nothing of the new ones"
            reused += cached
    assert reused > 500
    for one in (engine, second):
        one.wait_until_idle()
        one.kill()


def test_weights_that_are_exchanged_in_the_middle_of_answers(cache: Cache, prompts: Prompts) -> None:
    engine = Engine(options={"socket": cache.socket}, enable_prefix_caching=True)
    texts = [text for text, _ in prompts.about_notes(83, 2500, 4)]
    before = [answer(engine, text)[0] for text in texts]
    engine.wait_until_idle()
    given = engine.generate(texts, max_tokens=40, exchange_after=12, scale=1.5)
    assert given["why"] == ["length"] * 4
    assert len(given["reset"]) == 1
    state = engine.wait_until_idle()
    if given["reset"] != [True]:
        assert engine.ask(op="reset", connector=True)["reset"] is True
    for text in texts:
        engine.reset()
        expected = answer(engine, text, params=_apart)[0]
        engine.reset()
        for _ in range(2):
            assert answer(engine, text)[0] == expected
            state = engine.wait_until_idle()
            engine.reset()
    assert [answer(engine, text)[0] for text in texts] != before
    assert state["counters"]["loaded_tokens"] > 0
    engine.kill()


def test_an_engine_that_sleeps_and_wakes_has_a_new_generation(cache: Cache, prompts: Prompts) -> None:
    engine = Engine(options={"socket": cache.socket}, enable_prefix_caching=False)
    ((text, _),) = prompts.about_notes(84, 2500, 1)
    expected = answer(engine, text)
    engine.wait_until_idle()
    assert answer(engine, text)[1] > 500
    engine.wait_until_idle()
    engine.ask(op="sleep")
    assert answer(engine, text) == expected, "computed: its weights may be others"
    engine.wait_until_idle()
    assert answer(engine, text)[1] > 500
    engine.wait_until_idle()
    engine.kill()
