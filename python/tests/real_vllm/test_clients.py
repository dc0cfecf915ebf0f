"""Whatever clients of a real vLLM write into their requests: it costs them the cache, and nobody else anything."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from real_vllm.harness import Engine, Prompts, reprise
from support.cache_process import Cache


@pytest.fixture
def cache() -> Iterator[Cache]:
    folder = Path(tempfile.mkdtemp(prefix="reprise-"))
    cache = Cache(folder)
    yield cache
    assert cache.stats()["leases"] == 0
    cache.stop()
    shutil.rmtree(folder, ignore_errors=True)


def nonsense(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value."""
    kind = rng.randrange(9 if depth < 4 else 7)
    if kind < 7:
        return rng.choice([None, True, False, 5, -1e300, "", "read", "x" * 10_000, "\ud800"])
    if kind == 7:
        return [nonsense(rng, depth + 1) for _ in range(rng.randrange(4))]
    names = ["reprise", "read", "save", "valid_until", "do_remote_prefill", "", "\0"]
    return {rng.choice(names): nonsense(rng, depth + 1) for _ in range(rng.randrange(4))}


def test_a_hundred_requests_of_nonsense_leave_the_next_one_its_hits(cache: Cache, prompts: Prompts) -> None:
    engine = Engine(options={"socket": cache.socket}, enable_prefix_caching=False)
    ((text, _),) = prompts.about_notes(91, 2500, 1)
    expected = engine.generate([text])["tokens"]
    engine.wait_until_idle()
    rng = random.Random(1)
    params: list[Any] = [{"reprise": None}, {"reprise": 5}, {"reprise": []}, {"reprise": "x"}, {"reprise": {"read": 5}}]
    # What is no object at all does not reach a connector in every release: test_fuzzed_requests.py has it.
    params += [{"reprise": nonsense(rng)} for _ in range(60)]
    params += [{"reprise": {"read": nonsense(rng), "save": nonsense(rng)}} for _ in range(35)]
    salts = [rng.choice(["", "a" * 5000, "ä" * 4000, "\ud800", "\0"]) or None for _ in params]
    for first in range(0, len(params), 20):
        batch = [text[: rng.randrange(1, 200)] for _ in range(20)]
        given = engine.generate(batch, max_tokens=1, params=params[first : first + 20], salts=salts[first : first + 20])
        assert given["why"] == ["length"] * 20
    given = engine.generate([text])
    assert given["tokens"] == expected and given["cached"][0] > 500
    assert engine.wait_until_idle()["counters"]["requests_unreadable"] > 50
    engine.kill()


@pytest.mark.parametrize("role", ["kv_producer", "kv_consumer"])
def test_each_role_does_its_half(cache: Cache, prompts: Prompts, role: str) -> None:
    one_role = Engine(transfer=reprise({"socket": cache.socket}, kv_role=role), enable_prefix_caching=False)
    both = Engine(options={"socket": cache.socket}, enable_prefix_caching=False)
    ((text, _),) = prompts.about_notes(92, 2500, 1)
    expected = one_role.generate([text])["tokens"]
    assert (one_role.wait_until_idle()["counters"].get("saved_bytes", 0) > 0) == (role == "kv_producer")
    given = both.generate([text])
    assert given["tokens"] == expected and (given["cached"][0] > 500) == (role == "kv_producer")
    both.wait_until_idle()
    given = one_role.generate([text])
    assert given["tokens"] == expected and given["cached"][0] > 500, "a producer loads what it has stored before"
    for engine in (one_role, both):
        engine.wait_until_idle()
        engine.kill()
