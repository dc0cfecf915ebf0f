"""Sizes of chunks, and the engines whose KV cannot be stored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from reprise_engine.jobs import Geometry
from reprise_engine.plan import WorkerLayout
from reprise_vllm.generations.v0_27 import From027To033
from reprise_vllm.identity import NotSupported, geometry_of

MIB = 1 << 20


def geometry(block_bytes: int, place_bytes: int, chunk_tokens: int = 0, **more: bool) -> Geometry:
    config: Any = SimpleNamespace(
        parallel_config=SimpleNamespace(),
        cache_config=SimpleNamespace(
            calculate_kv_scales=more.get("scales", False), enable_prefix_caching=more.get("prefixes", True)
        ),
        scheduler_config=SimpleNamespace(enable_chunked_prefill=more.get("chunked", True)),
        model_config=SimpleNamespace(enable_sleep_mode=more.get("sleeps", False)),
    )
    spec = SimpleNamespace(block_size=16, dtype="torch.bfloat16")
    kv_cache: Any = SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec)])
    return geometry_of(config, kv_cache, [WorkerLayout(block_bytes, "s", place_bytes)], chunk_tokens, From027To033())


def test_chunks_are_of_about_16_mib_and_must_fit_a_staging_place() -> None:
    assert geometry(2 * MIB, 64 * MIB).chunk_tokens == 128
    assert geometry(2 * MIB, 16 * MIB).chunk_tokens == 128
    with pytest.raises(NotSupported, match=r"16777216 bytes.*places of 8388608: raise `staging`"):
        geometry(2 * MIB, 8 * MIB)
    assert geometry(2 * MIB, 8 * MIB, chunk_tokens=64).chunk_tokens == 64


def test_an_engine_that_may_wake_with_other_weights_is_refused() -> None:
    with pytest.raises(NotSupported, match="sleep mode"):
        geometry(2 * MIB, 64 * MIB, sleeps=True)


def test_an_engine_that_scales_its_kv_by_its_first_prompt_is_refused() -> None:
    with pytest.raises(NotSupported, match="calculate_kv_scales"):
        geometry(2 * MIB, 64 * MIB, scales=True)


def test_an_engine_whose_attention_cannot_go_on_from_what_is_there_is_refused() -> None:
    assert geometry(2 * MIB, 64 * MIB, prefixes=False) == geometry(2 * MIB, 64 * MIB, chunked=False)
    with pytest.raises(NotSupported, match="prefix caching and chunked prefill"):
        geometry(2 * MIB, 64 * MIB, prefixes=False, chunked=False)
