"""Two vLLM processes on two hosts, each with its own cache: what one has read, the other finds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vllm")

from conftest import eventually
from real_vllm.harness import Engine, Prompts, reprise
from real_vllm.test_several_connectors import begun, ours, several, strict
from support.network_hosts import hosts_can_be_made
from support.shared_tiers import TwoHosts, two_hosts

pytestmark = pytest.mark.skipif(
    not hosts_can_be_made() and "CI" not in os.environ, reason="no network namespaces can be made here"
)


@pytest.fixture(params=["valkey", "peer"])
def hosts(request: pytest.FixtureRequest) -> Iterator[TwoHosts]:
    with two_hosts(request.param) as hosts:
        yield hosts


CHUNK_TOKENS = 64


def shared(text: list[int]) -> int:
    """What another host finds of it at least: whole chunks. Its tail may have been stored with an answer behind it."""
    return (len(text) - 1) // CHUNK_TOKENS * CHUNK_TOKENS


def engine_on(hosts: TwoHosts, host: str, *others: dict[str, Any]) -> Engine:
    """With our connector alone, or behind others."""
    cache = hosts.a if host == "a" else hosts.b
    # Many chunks for each text; this machine may be busy.
    options = {"chunk_tokens": CHUNK_TOKENS, "shared_deadline_ms": 10_000}
    transfer = several(*others, ours(cache, **options)) if others else reprise({"socket": cache.socket, **options})
    return Engine(
        transfer=transfer,
        inside=hosts.network.inside(host),
        enable_prefix_caching=False,
        disable_log_stats=False,
    )


def tier_of(hosts: TwoHosts) -> str:
    return "peer" if hosts.store is None else "valkey"


def test_tokens_are_those_of_vllm_alone_and_hits_are_external(hosts: TwoHosts, prompts: Prompts, alone: Engine) -> None:
    first = engine_on(hosts, "a")
    second = engine_on(hosts, "b") if hosts.store is not None else begun(engine_on(hosts, "b", strict))
    texts = [text for seed in (201, 202, 203) for text, _ in prompts.about_notes(seed, 3500, 1)]
    expected = alone.generate(texts)["tokens"]
    assert first.generate(texts)["tokens"] == expected
    first.wait_until_idle()

    # What the first has just computed may be on its way still; the second waits for it.
    awaited = {"reprise": {"await": True}}
    given = second.generate(texts, params=[awaited] * len(texts))
    assert given["tokens"] == expected
    for text, cached in zip(texts, given["cached"], strict=True):
        assert 600 < shared(text) <= cached
    counters = second.wait_until_idle()["counters"]
    assert counters["async_loaded_tokens"] == sum(given["cached"])
    external = second.ask(op="metrics")["external"]
    assert external["vllm:external_prefix_cache_hits"] == sum(given["cached"])
    asked = external["vllm:external_prefix_cache_queries"] - sum(len(text) for text in texts)
    assert asked % 3 == 0 <= asked, "and what the engine began with, three tokens at a time"
    assert hosts.b.stats()["loadedTokens"][tier_of(hosts)] == sum(given["cached"])

    # One at a time, as a text that nobody said anything of, and the other way round.
    (other,) = [text for text, _ in prompts.about_notes(204, 3500, 1)]
    expected = alone.generate([other])["tokens"]
    assert second.generate([other])["tokens"] == expected
    second.wait_until_idle()
    if hosts.store is not None:
        eventually(lambda: hosts.b.stats()["tiers"]["valkey"]["records"] >= shared(other) // CHUNK_TOKENS)
    given = first.generate([other])
    assert given["tokens"] == expected and given["cached"][0] >= shared(other)
    first.wait_until_idle()

    # The store, or the other host's cache, hangs: texts are computed, and those on this host are loaded as ever.
    hosts.stop_answering()
    texts = [text for text, _ in prompts.about_notes(205, 3500, 1)] + [other]
    expected = alone.generate(texts)["tokens"]
    given = second.generate(texts)
    assert given["tokens"] == expected and given["why"] == ["length", "length"]
    assert given["cached"][1] >= shared(other)
    second.wait_until_idle()
    hosts.answer_again()
    for engine in (first, second):
        engine.wait_until_idle()
        engine.kill()
    for cache in (hosts.a, hosts.b):
        assert cache.stats()["leases"] == 0
