"""Nixl hands over what one vLLM has read to another on the next host, and Reprise beside it remembers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from real_vllm.harness import BLOCK_TOKENS, REPOSITORY, Engine, Prompts
from real_vllm.test_several_connectors import begun, ours, several
from support.network_hosts import hosts_can_be_made
from support.shared_tiers import TwoHosts, two_hosts

#: Where its Python names lie.
_nixl = Path(os.environ.get("REPRISE_TEST_NIXL", "nowhere"))
pytestmark = [
    pytest.mark.skipif(
        not hosts_can_be_made() and "CI" not in os.environ, reason="no network namespaces can be made here"
    ),
    pytest.mark.skipif(
        not (_nixl / "nixl").is_dir() and "CI" not in os.environ, reason="REPRISE_TEST_NIXL names no folder with NIXL"
    ),
]
#: What a proxy asks of the engine that reads.
_to_be_handed_over = {"do_remote_decode": True, "do_remote_prefill": False}
#: How long that engine keeps the blocks for the other.
_lease_seconds = 15


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with two_hosts("peer") as hosts:
        yield hosts


def engine_on(hosts: TwoHosts, host: str, role: str) -> Engine:
    cache = hosts.a if host == "a" else hosts.b
    nixl = {
        "kv_connector": "NixlConnector",
        "kv_role": role,
        "kv_connector_extra_config": {"kv_lease_duration": _lease_seconds},
    }
    network = {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": hosts.network.address(host),
        "UCX_TLS": "tcp,self",  # and not memory, though both hosts are this machine
        "UCX_NET_DEVICES": "eth0",
    }
    return Engine(
        transfer=several(nixl, ours(cache, chunk_tokens=64, shared_deadline_ms=10_000)),
        variables={"PYTHONPATH": os.pathsep.join([str(REPOSITORY / "python"), str(_nixl)]), **network},
        inside=hosts.network.inside(host),
        enable_prefix_caching=False,  # and no statistics: vLLM cannot tell Nixl's among several within one process
    )


def read(engine: Engine, *texts: list[int]) -> list[dict[str, Any]]:
    """By the engine that hands over. What a proxy passes on to the other."""
    said = engine.generate(list(texts), max_tokens=1, params=[_to_be_handed_over] * len(texts))["handed_over"]
    assert all(params["do_remote_prefill"] for params in said)
    return list(said)


def test_what_is_handed_over_is_stored_and_what_fails_or_comes_late_is_not(
    hosts: TwoHosts, prompts: Prompts, alone: Engine
) -> None:
    reader, other = engine_on(hosts, "a", "kv_producer"), engine_on(hosts, "b", "kv_consumer")
    texts = [text for seed in range(401, 409) for text, _ in prompts.about_notes(seed, 3500, 1)]
    expected = alone.generate(texts)["tokens"]
    begun(reader)
    begun(other)

    # One, then two at a time: none is looked for elsewhere, each crosses the network once, and all blocks come back.
    assert other.generate(texts[:1], params=read(reader, texts[0]))["tokens"] == expected[:1]
    said = read(reader, *texts[1:3])
    assert other.generate(texts[1:3], params=said)["tokens"] == expected[1:3]
    counters = other.wait_until_idle()["counters"]
    assert counters.get("lookups", 0) == 0 < counters["saved_bytes"], "Reprise is asked for what Nixl does not bring"
    assert hosts.b.stats()["tiers"]["peer"]["readChunks"] == 0
    reader.wait_until_idle()
    assert time.time() < said[0]["reprise"]["valid_until"], (
        "because they were fetched, and not because the lease is over"
    )

    # The next turn finds it, the engine that has read it does, and hands it over again.
    turn = [*texts[0], *expected[0], *texts[1][-40:]]
    given = other.generate([turn])
    assert given["tokens"] == alone.generate([turn])["tokens"]
    assert given["cached"][0] >= len(texts[0]) // BLOCK_TOKENS * BLOCK_TOKENS
    loaded = reader.wait_until_idle()["counters"].get("loaded_tokens", 0)
    assert other.generate(texts[:1], params=read(reader, texts[0]))["tokens"] == expected[:1]
    assert reader.wait_until_idle()["counters"]["loaded_tokens"] > loaded
    assert other.wait_until_idle()["counters"].get("late_handovers", 0) == 0

    # Nobody waits for ever: not for who leaves, not for what nobody fetches.
    other.generate(texts[3:4], params=read(reader, texts[3]), abort=[0])
    other.wait_until_idle()
    forgotten = read(reader, texts[4])
    reader.wait_until_idle()
    # Its blocks hold something else now. Nixl fetches that, and vLLM answers with it; but it is not stored.
    time.sleep(max(0.0, forgotten[0]["reprise"]["valid_until"] - time.time()))
    reader.generate(texts[5:6], max_tokens=1)
    other.generate(texts[4:5], params=forgotten)
    assert other.wait_until_idle()["counters"]["late_handovers"] == 1
    assert other.generate(texts[4:5])["tokens"] == expected[4:5]

    # The engine that has read it dies: it is found elsewhere, or computed.
    gone = read(reader, texts[6])
    reader.kill()
    began = time.monotonic()
    assert other.generate(texts[6:7], params=gone)["tokens"] == expected[6:7]
    assert time.monotonic() - began < 30
    hosts.a.kill()
    other.wait_until_idle()
    other.kill()

    # After a restart, and with nobody else there, what was handed over is found.
    other = begun(engine_on(hosts, "b", "kv_consumer"))
    given = other.generate(texts[1:2])
    assert given["tokens"] == expected[1:2]
    assert given["cached"][0] >= (len(texts[1]) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    other.wait_until_idle()
    other.kill()
    assert hosts.b.stats()["leases"] == 0
