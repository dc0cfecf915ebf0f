"""One vLLM reads prompts on one host, another answers on the next, and a proxy sits between them and clients."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from real_vllm.harness import BLOCK_TOKENS, MODEL, Engine, Prompts, reprise
from real_vllm.served import Client, Program, proxy, serve
from support.cache_process import Cache
from support.network_hosts import hosts_can_be_made
from support.shared_tiers import TwoHosts, two_hosts

pytestmark = pytest.mark.skipif(
    not hosts_can_be_made() and "CI" not in os.environ, reason="no network namespaces can be made here"
)


#: Of which a token's KV has 2 KiB, and is far slower to compute than to load, also on a machine that does much else.
_wide: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 8192,
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "bos_token_id": None,
    "eos_token_id": 4,
    "pad_token_id": 5,
    "torch_dtype": "float32",
}


@pytest.fixture(scope="module")
def model() -> Iterator[Path]:
    import random_models

    folder = Path(tempfile.mkdtemp(prefix="reprise-"))
    yield random_models.write_model(folder / "model", _wide, MODEL)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def alone(model: Path) -> Iterator[Engine]:
    engine = Engine(model=str(model), enable_prefix_caching=False)
    yield engine
    engine.kill()


@dataclass
class Service:
    hosts: TwoHosts
    client: Client
    prefill: Program
    decode: Program
    proxy: Program

    def external(self, name: str) -> float:
        """What the decoder counts as external, in tokens."""
        return self.client.metric(self.decode.url, f"vllm:external_prefix_cache_{name}_total")


@pytest.fixture(params=["valkey", "peer"])
def service(request: pytest.FixtureRequest, model: Path) -> Iterator[Service]:
    with two_hosts(request.param, "client") as hosts, contextlib.ExitStack() as ends:
        network = hosts.network
        # This machine may be busy: what is stored may take a while to come.
        options = {"chunk_tokens": 256, "shared_deadline_ms": 20_000}

        def engine(host: str, cache: Cache, role: str) -> Program:
            transfer = reprise({**options, "socket": cache.socket}, kv_role=role)
            return serve(model, network.address(host), transfer, network.inside(host))

        prefill, decode = engine("a", hosts.a, "kv_producer"), engine("b", hosts.b, "kv_consumer")
        client = Client(network.inside("client"))
        between = proxy(prefill, decode, network.inside("client"))
        for program in (prefill, decode, between):
            ends.callback(program.kill)
        for program in (prefill, decode, between):
            program.wait(client)
        yield Service(hosts, client, prefill, decode, between)


def test_tokens_are_those_of_one_process_and_nothing_is_computed_twice(
    service: Service, prompts: Prompts, alone: Engine
) -> None:
    client, url = service.client, service.proxy.url
    texts = [text for seed in range(301, 305) for text, _ in prompts.about_notes(seed, 3500, 1)]
    expected = alone.generate(texts)["tokens"]

    # One at a time, then two.
    assert [client.tokens(url, text) for text in texts[:2]] == expected[:2]
    with ThreadPoolExecutor(2) as threads:
        given = list(threads.map(lambda text: client.tokens(url, text), texts[2:]))
    assert given == expected[2:]
    asked = sum(len(text) for text in texts)
    assert service.external("queries") == asked
    assert asked - service.external("hits") <= BLOCK_TOKENS * len(texts), "at most a block of each was read twice"
    saved = "vllm:reprise_saved_bytes_total"
    assert client.metric(service.prefill.url, saved) > 0 == client.metric(service.decode.url, saved)

    # The prefiller reads a text once, too.
    hits = client.metric(service.prefill.url, "vllm:external_prefix_cache_hits_total")
    assert client.tokens(url, texts[0]) == expected[0]
    again = client.metric(service.prefill.url, "vllm:external_prefix_cache_hits_total") - hits
    assert len(texts[0]) - again <= BLOCK_TOKENS

    # A chat as it is streamed, and what both refuse.
    chat = {"model": "notes", "messages": [{"role": "user", "content": "Who keeps the lamp?"}], "max_tokens": 5}
    streamed = client.post_text(f"{url}/v1/chat/completions", {**chat, "stream": True})
    assert streamed.startswith("data: {") and streamed.rstrip().endswith("data: [DONE]")
    refused = client.post(f"{url}/v1/chat/completions", {**chat, "messages": "nonsense"})
    assert refused["error"]["code"] == 400

    # The host that has read a text vanishes before the other has loaded it: it is read again, and nobody notices.
    vanished = "a" if service.hosts.store is None else "store"
    one, two, three = (text for seed in (311, 312, 313) for text, _ in prompts.about_notes(seed, 3500, 1))
    expected = alone.generate([one, two, three])["tokens"]
    assert client.tokens(service.prefill.url, one, max_tokens=1) == expected[0][:1]
    service.hosts.network.connect(vanished, up=False)
    began = time.monotonic()
    awaited = {"kv_transfer_params": {"reprise": {"await": True}}}
    assert client.tokens(service.decode.url, one, **awaited) == expected[0]
    assert time.monotonic() - began < 30
    service.hosts.network.connect(vanished, up=True)

    # So do the cache that it lay in, and the engine that has read it.
    assert client.tokens(service.prefill.url, two, max_tokens=1) == expected[1][:1]
    service.hosts.a.kill()
    assert client.tokens(service.decode.url, two, **awaited) == expected[1]
    service.prefill.kill()
    assert client.tokens(url, three) == expected[2]
    assert client.tokens(url, three) == expected[2]
    assert service.hosts.b.stats()["leases"] == 0
