"""What a real vLLM can be beside dense attention on one rank: fp8 KV, MLA, pipeline parallel, LoRA.

On the CPU, the same tokens as without the connector: cold, warm, and warm in a second process. All tests use one cache
and, where the model is the same, the same texts: what another dtype or adapter has stored must be a miss.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from real_vllm.harness import BLOCK_TOKENS, MODEL, Engine, Prompts
from support.cache_process import Cache

_common: dict[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "bos_token_id": None,
    "eos_token_id": 4,
    "pad_token_id": 5,
    "torch_dtype": "float32",
}
_llama = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_key_value_heads": 2, "head_dim": 64}
#: As DeepSeek-V2-Lite: a token's KV is 512 numbers that all heads share, and 64 with its position. No experts.
_latent = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "first_k_dense_replace": 3,
}
#: [name, number, folder], or none for the base.
Lora = tuple[str, int, str] | None


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="reprise-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def cache(folder: Path) -> Iterator[Cache]:
    cache = Cache(folder / "cache")
    yield cache
    assert cache.stats()["leases"] == 0
    cache.stop()


@pytest.fixture(scope="module")
def texts(prompts: Prompts) -> list[list[int]]:
    """Texts that share nothing with each other, of 300 to 1100 tokens."""
    return [
        text for seed, size in ((71, 1000), (72, 2200), (73, 3600)) for text, _ in prompts.about_notes(seed, size, 1)
    ]


@pytest.fixture(scope="module")
def llama(folder: Path) -> Path:
    import random_models

    model: Path = random_models.write_model(folder / "llama", _common | _llama, MODEL)
    return model


@contextlib.contextmanager
def engines(
    cache: Cache, alone: dict[str, Any] | None = None, **settings: Any
) -> Iterator[tuple[Engine, Engine, Engine]]:
    """VLLM without a connector, and two with it. `alone`: settings that only the first has."""
    options = {"socket": cache.socket}
    started = (
        Engine(enable_prefix_caching=False, **{**settings, **(alone or {})}),
        Engine(options=options, enable_prefix_caching=True, **settings),
        Engine(options=options, enable_prefix_caching=True, **settings),
    )
    try:
        yield started
    finally:
        for engine in started:
            engine.kill()


def answer(engine: Engine, text: list[int], lora: Lora = None) -> tuple[list[int], int]:
    """What it answers, and how many tokens it did not compute."""
    given = engine.generate([text], adapters=[lora])
    return given["tokens"][0], given["cached"][0]


def loaded(engine: Engine) -> int:
    return int(engine.wait_until_idle()["counters"].get("loaded_tokens", 0))


def whole(text: list[int], block_tokens: int) -> int:
    """What can be reused of a text."""
    return (len(text) - 1) // block_tokens * block_tokens


def expect_reuse(
    engine: Engine, asked: list[tuple[list[int], Lora, list[int]]], block_tokens: int = BLOCK_TOKENS
) -> None:
    """Every answer is as expected, and nothing was computed that is stored."""
    before = loaded(engine)
    for text, lora, expected in asked:
        assert answer(engine, text, lora) == (expected, whole(text, block_tokens))
    assert loaded(engine) - before == sum(whole(text, block_tokens) for text, _, _ in asked)


def expect_same_everywhere(
    alone: Engine, first: Engine, second: Engine, texts: list[list[int]], block_tokens: int = BLOCK_TOKENS
) -> None:
    asked: list[tuple[list[int], Lora, list[int]]] = [(text, None, answer(alone, text)[0]) for text in texts]
    assert len({tuple(expected) for _, _, expected in asked}) == len(asked)
    for text, _, expected in asked:
        assert answer(first, text) == (expected, 0), "nobody has stored this"
    first.wait_until_idle()
    first.reset()
    expect_reuse(first, asked, block_tokens)
    expect_reuse(second, asked, block_tokens)


@pytest.mark.parametrize("dtype", ["fp8", "fp8_e5m2"])
def test_kv_of_each_dtype_is_a_space_of_its_own(llama: Path, cache: Cache, texts: list[list[int]], dtype: str) -> None:
    with engines(cache, model=str(llama), kv_cache_dtype=dtype) as three:
        expect_same_everywhere(*three, texts)


def test_latent_attention(folder: Path, cache: Cache, texts: list[list[int]]) -> None:
    import random_models

    model = random_models.write_model(folder / "latent", _common | _latent, MODEL)
    with engines(cache, model=str(model), block_size=16) as (alone, first, second):
        try:
            answer(alone, texts[0])
        except AssertionError:
            pytest.skip(
                "on this CPU vLLM does not start with latent attention and weights of four bytes, without us either"
            )
        if first.wait_until_idle()["reuses"]:  # a CPU with AMX
            expect_same_everywhere(alone, first, second, texts, block_tokens=16)
            return
        # Elsewhere vLLM's kernel computes a prompt without looking at KV that is there, its own included.
        for _ in range(2):
            for text in texts:
                assert answer(first, text) == (answer(alone, text)[0], 0)


def test_a_pipeline_of_two_stages_that_differ_in_size(llama: Path, cache: Cache, texts: list[list[int]]) -> None:
    # On the CPU vLLM runs pipelines only where it compiles; the variables spare it the compiler.
    compiled = {"VLLM_CPU_CI_ENV": "1", "TORCHDYNAMO_DISABLE": "1"}
    stages = {**compiled, "VLLM_PP_LAYER_PARTITION": "2,1"}
    settings: dict[str, Any] = {"model": str(llama), "enforce_eager": False}
    one = {"pipeline_parallel_size": 1, "variables": compiled}
    with engines(cache, one, **settings, pipeline_parallel_size=2, variables=stages) as three:
        expect_same_everywhere(*three, texts)
        alone, first, _ = three
        # Several batches at a time: a stage computes one while the other has the next.
        many = [text[i : i + 400] for text in texts for i in (0, 40, 80)]
        expected = [answer(alone, text)[0] for text in many]
        for _ in range(2):
            assert first.generate(many)["tokens"] == expected
            first.wait_until_idle()
            first.reset()
        assert loaded(first) > 0.9 * sum(whole(text, BLOCK_TOKENS) for text in many)


def test_adapters_share_nothing_but_what_is_the_same_adapter(
    folder: Path, llama: Path, cache: Cache, texts: list[list[int]]
) -> None:
    import random_models

    a, b, c = (random_models.write_adapter(folder / name, seed, llama) for seed, name in enumerate("abc"))
    settings: dict[str, Any] = {"enable_lora": True, "max_loras": 2, "max_cpu_loras": 4, "max_lora_rank": 8}
    with engines(cache, **settings, model=str(llama)) as (alone, first, second):
        base, with_a, with_b = None, ("a", 1, str(a)), ("b", 2, str(b))
        asked = [(text, lora) for text in texts for lora in (base, with_a, with_b)]
        truth = [(text, lora, answer(alone, text, lora)[0]) for text, lora in asked]
        assert len({tuple(expected) for _, _, expected in truth}) == len(truth), "adapters change every answer"
        introduce(first, with_a, with_b)
        for text, lora, expected in truth:
            assert answer(first, text, lora) == (expected, 0), "nobody has stored this for this adapter"
        first.wait_until_idle()
        first.reset()
        expect_reuse(first, truth)

        renamed = ("renamed", 5, str(shutil.copytree(a, folder / "copy of a")))
        others = {base: base, with_a: renamed, with_b: ("a", 6, str(b))}
        introduce(second, renamed, others[with_b])
        expect_reuse(second, [(text, others[lora], expected) for text, lora, expected in truth])

        # Other weights at the path of an adapter that is loaded, and was reused from there.
        text, _, expected_of_a = truth[1]
        expected_of_c = answer(alone, text, ("c", 3, str(c)))[0]
        assert expected_of_c != expected_of_a
        shutil.copy(c / "adapter_model.safetensors", a)
        first.reset()
        assert answer(first, text, with_a) == (expected_of_a, 0), "loaded before: as it was, and not from the cache"
        new = ("new", 7, str(a))
        introduce(second, new)
        assert answer(second, text, new) == (expected_of_c, 0)
        second.wait_until_idle()
        second.reset()
        expect_reuse(second, [(text, new, expected_of_c)])


def introduce(engine: Engine, *loras: Lora) -> None:
    """Asks until the connector knows the adapters: it reads them in the background."""
    for lora in loras:
        skipped = -1
        while (now := engine.wait_until_idle()["counters"].get("requests_skipped", 0)) != skipped:
            skipped = now
            answer(engine, [11, 12, 13], lora)
