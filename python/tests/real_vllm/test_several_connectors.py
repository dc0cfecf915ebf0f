"""Our connector inside vLLM's MultiConnector, before and behind others."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from real_vllm.harness import MODEL, Engine, Prompts, reprise
from support.cache_process import Cache

strict: dict[str, Any] = {
    "kv_connector": "StrictConnector",
    "kv_connector_module_path": "strict_connector",
    "kv_role": "kv_both",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="reprise-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def several(*connectors: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {
        "kv_connector": "MultiConnector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {"connectors": list(connectors)},
        **top,
    }


def ours(cache: Cache, **options: Any) -> dict[str, Any]:
    """As an entry of the list: the policy stands at the top, and the class is known by its name."""
    entry = reprise({"socket": cache.socket, **options})
    del entry["kv_load_failure_policy"], entry["kv_connector_module_path"]
    return entry


def begun(engine: Engine) -> Engine:
    """Past its first step, with which the layouts come."""
    reuses = engine.wait_until_idle()["reuses"]  # vLLM has started
    until = time.monotonic() + 60
    while not reuses:
        assert time.monotonic() < until
        engine.generate([[5, 6, 7]], max_tokens=1)
        reuses = engine.wait_until_idle()["reuses"]
    return engine


def expect_hit(engine: Engine, text: list[int], expected: list[list[int]]) -> None:
    given = engine.generate([text])
    assert given["tokens"] == expected and given["cached"][0] > 500
    engine.wait_until_idle()


@pytest.mark.parametrize("first", [True, False])
def test_beside_a_connector_that_accepts_no_handshake_but_its_own(folder: Path, prompts: Prompts, first: bool) -> None:
    cache = Cache(folder)
    both = [ours(cache), strict] if first else [strict, ours(cache)]
    engine = begun(Engine(transfer=several(*both), enable_prefix_caching=False, disable_log_stats=False))
    ((text, _),) = prompts.about_notes(95, 2500, 1)
    expected = engine.generate([text])["tokens"]
    engine.wait_until_idle()
    expect_hit(engine, text, expected)
    read = engine.ask(op="metrics")["scraped"]
    assert float(read[f'vllm:reprise_loaded_tokens_total{{engine="0",model_name="{MODEL}"}}']) > 500
    assert engine.ask(op="reset", connector=True)["reset"] is True
    assert engine.generate([text])["cached"] == [0]
    engine.wait_until_idle()
    engine.kill()
    assert cache.stats()["leases"] == 0
    cache.stop()


def test_two_caches_and_one_of_them_dies(folder: Path, prompts: Prompts) -> None:
    caches = [Cache(folder / "a"), Cache(folder / "b")]
    engine = begun(Engine(transfer=several(*(ours(cache) for cache in caches)), enable_prefix_caching=False))
    ((text, _),) = prompts.about_notes(96, 2500, 1)
    expected = engine.generate([text])["tokens"]
    engine.wait_until_idle()
    expect_hit(engine, text, expected)
    caches[0].kill()
    engine.generate([text])
    expect_hit(engine, text, expected)
    engine.kill()
    assert caches[1].stats()["leases"] == 0
    caches[1].stop()


def test_loads_that_come_late_are_computed(folder: Path, prompts: Prompts) -> None:
    cache = Cache(folder)
    engine = begun(Engine(transfer=several(ours(cache, load_deadline_ms=1), strict), enable_prefix_caching=False))
    texts = [text for seed in range(97, 103) for text, _ in prompts.about_notes(seed, 2500, 1)]
    expected = [engine.generate([text])["tokens"] for text in texts]
    engine.wait_until_idle()
    cache.stop()
    cache.start()
    engine.generate([[5, 6, 7]], max_tokens=1)
    time.sleep(1)
    for text, tokens in zip(texts, expected, strict=True):
        given = engine.generate([text])
        assert given["tokens"] == tokens and given["why"] == ["length"]
    assert engine.wait_until_idle()["counters"]["unfinished_loads"] > 0
    engine.kill()
    cache.stop()
