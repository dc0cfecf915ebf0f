"""A real vLLM on the CPU with the connector: the same tokens as without it, whatever happens to the cache.

Exact comparisons send one prompt at a time, so that both sides compute the same batches (on a CPU the last bits
depend on the shape of a batch); where several run at once, the shipped model's checkable answers are compared.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from real_vllm.harness import BLOCK_TOKENS, MODEL, Engine, Prompts, environment
from support.cache_process import Cache, SlowProxy


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="reprise-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def truth(alone: Engine, prompts: Prompts) -> list[tuple[list[int], list[int]]]:
    """Prompts that share beginnings of random length, and what vLLM alone goes on with."""
    texts = [prompt for seed in (1, 2) for prompt in prompts.sharing(seed, 6)]
    return [(text, alone.generate([text])["tokens"][0]) for text in texts]


def expect_same(engine: Engine, truth: list[tuple[list[int], list[int]]]) -> int:
    """Asks one prompt after the other. Returns how many tokens were not computed."""
    cached = 0
    for text, expected in truth:
        answer = engine.generate([text])
        assert answer["tokens"][0] == expected
        cached += answer["cached"][0]
    return cached


def reusable(truth: list[tuple[list[int], list[int]]]) -> int:
    """Tokens that are stored when every text was seen before."""
    return sum((len(text) - 1) // BLOCK_TOKENS * BLOCK_TOKENS for text, _ in truth)


def test_the_same_tokens_cold_warm_after_restarts_and_in_a_second_process(
    place: Path, truth: list[tuple[list[int], list[int]]]
) -> None:
    folder = place / "a"
    cache = Cache(folder)
    engine = Engine(options={"socket": cache.socket}, enable_prefix_caching=False)
    expect_same(engine, truth)
    engine.wait_until_idle()
    assert expect_same(engine, truth) == reusable(truth), "warm: everything from memory"
    state = engine.wait_until_idle()
    assert state["counters"]["loaded_tokens"] >= reusable(truth)
    engine.kill()

    engine = Engine(options={"socket": cache.socket}, enable_prefix_caching=True)
    assert expect_same(engine, truth) >= reusable(truth), "after a restart of vLLM"
    engine.wait_until_idle()

    cache.kill()
    cache = Cache(folder)
    engine.reset()
    assert expect_same(engine, truth) >= reusable(truth) * 0.9, "after the death of the cache: it adopts its memory"
    engine.wait_until_idle()

    cache.stop()
    cache = Cache(folder)
    engine.reset()
    assert expect_same(engine, truth) >= reusable(truth) * 0.9, "after its end: from disk"
    assert engine.wait_until_idle()["counters"]["async_loaded_tokens"] > 0

    second = Engine(options={"socket": cache.socket}, enable_prefix_caching=False, disable_log_stats=False)
    assert expect_same(second, truth) >= reusable(truth) * 0.9, "a second process of the same cache"
    counters = second.wait_until_idle()["counters"]
    metrics = second.ask(op="metrics")
    labels = f'{{engine="0",model_name="{MODEL}"}}'
    for name in ("lookups", "loaded_tokens"):
        assert counters[name] == metrics["read"][f"vllm:reprise_{name}"] > 0
        assert counters[name] == float(metrics["scraped"][f"vllm:reprise_{name}_total{labels}"])
    assert metrics["read"]["vllm:reprise_failed_loads"] == 0
    assert cache.stats()["leases"] == 0
    second.kill()
    engine.kill()
    cache.stop()


def test_eight_at_a_time_with_few_blocks_and_a_small_pool(place: Path, prompts: Prompts) -> None:
    """Preemptions, evictions, chunked prefill, salts, aborts: answers stay right, and nothing is kept."""
    cache = Cache(place / "b", memory="64MiB", disk="1GiB")
    engine = Engine(
        options={"socket": cache.socket},
        enable_prefix_caching=True,
        num_gpu_blocks_override=160,
        max_num_batched_tokens=256,
    )
    asked = [pair for seed in range(6) for pair in prompts.about_notes(seed, 2500, 4)]
    right = total = 0
    for turn in range(3):
        for i in range(0, len(asked), 8):
            batch = asked[i : i + 8]
            aborted = [turn] if i % 16 == 0 else []
            salts = ["tenant" if k % 4 == 3 else "" for k in range(8)] if turn == 1 else None
            more = {"salts": [salt or None for salt in salts]} if salts else {}
            answer = engine.generate([text for text, _ in batch], max_tokens=24, abort=aborted, **more)
            for k, (_, expected) in enumerate(batch):
                if answer["tokens"][k] is None:
                    assert k in aborted
                    continue
                total += 1
                right += prompts.decode(answer["tokens"][k]).startswith(expected)
        engine.reset()
    state = engine.wait_until_idle()
    assert right >= 0.97 * total, f"{right} of {total} answers are right"
    assert sum(state["counters"].get(name, 0) for name in ("loaded_tokens", "async_loaded_tokens")) > 10_000
    assert cache.stats()["leases"] == 0
    engine.kill()
    cache.stop()


def test_of_requests_that_come_together_some_are_loaded_between_steps(place: Path, prompts: Prompts) -> None:
    cache = Cache(place / "g", memory="512MiB", disk="0")
    # 16 MiB are one text: the step that loads it waits for no other.
    engine = Engine(options={"socket": cache.socket}, enable_prefix_caching=False, waited_bytes=16 << 20)
    asked = [pair for seed in (70, 71) for pair in prompts.about_notes(seed, 2500, 4)]
    for text, _ in asked:
        engine.generate([text])
    engine.wait_until_idle()
    answer = engine.generate([text for text, _ in asked], max_tokens=24)
    right = [
        prompts.decode(tokens).startswith(expected)
        for tokens, (_, expected) in zip(answer["tokens"], asked, strict=True)
    ]
    assert sum(right) >= len(right) - 1
    counters = engine.wait_until_idle()["counters"]
    text_tokens = min(answer["cached"])
    assert counters["loaded_tokens"] >= text_tokens > 500
    assert counters["async_loaded_tokens"] >= 5 * text_tokens
    assert cache.stats()["leases"] == 0
    engine.kill()
    cache.stop()


def test_a_salt_isolates(place: Path, truth: list[tuple[list[int], list[int]]]) -> None:
    cache = Cache(place / "c")
    engine = Engine(options={"socket": cache.socket}, enable_prefix_caching=False)
    text, expected = max(truth, key=lambda pair: len(pair[0]))
    assert engine.generate([text], salts=["one"])["tokens"][0] == expected
    engine.wait_until_idle()
    other = engine.generate([text], salts=["two"])
    assert other["tokens"][0] == expected and other["cached"] == [0]
    engine.wait_until_idle()
    again = engine.generate([text], salts=["one"])
    assert again["tokens"][0] == expected and again["cached"][0] > 0
    engine.wait_until_idle()

    # The cache dies, is away, and comes back: each time the same tokens.
    cache.kill()
    assert engine.generate([text])["tokens"][0] == expected
    engine.wait_until_idle()
    cache = Cache(place / "c")
    for _ in range(3):
        assert engine.generate([text])["tokens"][0] == expected
        engine.wait_until_idle()
    assert engine.generate([text])["cached"][0] > 0

    # A record on disk is damaged: it is a miss, and the tokens are the same.
    cache.stop()
    cache.damage_disk()
    cache = Cache(place / "c")
    for _ in range(2):
        assert engine.generate([text])["tokens"][0] == expected
        engine.wait_until_idle()
    engine.kill()
    cache.stop()


def test_a_cache_that_answers_late_or_nonsense_costs_hits_only(
    place: Path, truth: list[tuple[list[int], list[int]]]
) -> None:
    cache = Cache(place / "d")
    proxy = SlowProxy(cache, seconds=0.05)
    engine = Engine(options={"socket": proxy.socket, "lookup_deadline_ms": 5}, enable_prefix_caching=False)
    for _ in range(2):
        expect_same(engine, truth[:4])
    state = engine.wait_until_idle()
    assert state["counters"]["misses_late"] > 0
    proxy.talk_nonsense()
    expect_same(engine, truth[:4])
    engine.wait_until_idle()
    proxy.close()
    expect_same(engine, truth[:2])
    engine.wait_until_idle()
    engine.kill()
    cache.stop()


def test_a_cache_killed_at_random_moments_costs_hits_only(place: Path, prompts: Prompts) -> None:
    cache = Cache(place / "e", memory="64MiB")
    engine = Engine(options={"socket": cache.socket}, enable_prefix_caching=True, num_gpu_blocks_override=160)
    asked = [pair for seed in range(3) for pair in prompts.about_notes(50 + seed, 2500, 8)]
    right = total = 0
    with cache.killed_and_restarted_every(seconds=1.5):
        for turn in range(4):
            for i in range(0, len(asked), 8):
                batch = asked[i : i + 8]
                answer = engine.generate([text for text, _ in batch], max_tokens=24)
                total += len(batch)
                right += sum(
                    prompts.decode(tokens).startswith(expected)
                    for tokens, (_, expected) in zip(answer["tokens"], batch, strict=True)
                )
            if turn % 2:
                engine.reset()
    state = engine.wait_until_idle()
    assert right >= 0.97 * total, f"{right} of {total} answers are right"
    assert sum(state["counters"].values()) > 0
    engine.kill()
    cache.stop()


def test_the_example_reuses_in_the_second_process_what_the_first_has_read(place: Path) -> None:
    cache = Cache(place / "f")
    example = Path(__file__).parents[2] / "examples" / "vllm_prefix_caching.py"
    arguments = ["--model", str(MODEL), "--socket", cache.socket]
    done = subprocess.run(
        [sys.executable, str(example), *arguments], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = dict(line.split(": reused ") for line in done.stdout.splitlines() if ": reused " in line)
    reused = {name: int(line.split()[0]) for name, line in lines.items()}
    assert "the answers are the same" in done.stdout
    assert reused["second process"] > reused["first process"] > 0
    cache.stop()
