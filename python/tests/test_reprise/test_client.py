"""The cache for research code, over a real one: arrays in, arrays out, and a cache that goes."""

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reprise
from conftest import REPOSITORY, CacheProcess, eventually, space
from reprise import Cache, RepriseError

SHAPE = (2, 3)


def connect(cache: CacheProcess, **change: Any) -> Cache:
    options: dict[str, Any] = {"model": "toy", "dtype": "float16", "token_shape": SHAPE, "chunk_tokens": 4, **change}
    return reprise.connect(socket=cache.socket_path, **options)


def kv_of(tokens: list[int], dtype: str = "float16") -> Any:
    """KV that tells its token: shape [len(tokens), 2, 3]."""
    return (np.array(tokens).reshape(-1, 1, 1) + np.arange(6).reshape(SHAPE)).astype(dtype)


def loaded(cache: Cache, tokens: list[int]) -> Any:
    """All that is known of `tokens`, copied: [hit tokens, 2, 3]."""
    with cache.load(tokens) as known:
        rows = [chunk.array.copy() for chunk in known.chunks]
        assert [bytes(chunk.bytes) for chunk in known.chunks] == [part.tobytes() for part in rows]
        assert known.is_held()
        assert sum(map(len, rows)) == known.hit_tokens
    return np.concatenate([*rows, np.zeros((0, *SHAPE), "float16")])


def test_what_was_saved_comes_back_token_by_token(cache: CacheProcess) -> None:
    tokens = list(range(10))
    with connect(cache) as mine:
        assert mine.lookup(tokens) == (0, {})
        assert len(loaded(mine, tokens)) == 0
        assert mine.save(tokens, kv_of(tokens)) == 10
        assert mine.save(tokens, kv_of(tokens)) == 0
        assert mine.lookup(tokens) == (10, {"memory": 10})
    with connect(cache) as other:
        assert np.array_equal(loaded(other, [*tokens, 99]), kv_of(tokens))
        # A text that parts inside a chunk gets that chunk's first rows.
        assert np.array_equal(loaded(other, [0, 1, 2, 3, 4, 99]), kv_of([0, 1, 2, 3, 4]))


def test_what_is_on_disk_is_prefetched_into_memory(folder: Path) -> None:
    tokens = list(range(10))
    cache = CacheProcess(folder, disk=True)
    with connect(cache) as mine:
        assert mine.prefetch(tokens) == 0
        mine.save(tokens, kv_of(tokens))
    cache.stop()
    cache = CacheProcess(folder, disk=True)
    with connect(cache) as mine:
        eventually(lambda: mine.lookup(tokens) == (10, {"disk": 10}))
        assert mine.prefetch(tokens) == 10
        assert mine.lookup(tokens) == (10, {"memory": 10})
        assert mine.stats()["leases"] == 0
    cache.stop()


def test_a_function_is_asked_for_the_chunks_that_are_missing_only(cache: CacheProcess) -> None:
    asked = []

    def kv(first_token: int, token_count: int) -> Any:
        asked.append((first_token, token_count))
        return kv_of(list(range(first_token, first_token + token_count)))

    with connect(cache) as mine:
        assert mine.save(list(range(8)), kv_of(list(range(8)))) == 8
        assert mine.save(list(range(14)), kv) == 6
        assert asked == [(8, 4), (12, 2)]
        assert np.array_equal(loaded(mine, list(range(14))), kv_of(list(range(14))))


def test_a_function_that_raises_keeps_the_chunks_before_it(cache: CacheProcess) -> None:
    def kv(first_token: int, token_count: int) -> Any:
        if first_token == 8:
            raise RuntimeError("out of memory")
        return kv_of(list(range(first_token, first_token + token_count)))

    with connect(cache) as mine:
        with pytest.raises(RuntimeError, match="out of memory"):
            mine.save(list(range(12)), kv)
        assert mine.lookup(list(range(12))).tokens == 8
        assert mine.save(list(range(12)), kv_of(list(range(12)))) == 4


@pytest.mark.parametrize("tokens", [[1, 2, 3], (1, 2, 3), np.array([1, 2, 3]), np.array([1, 2, 3], "uint32")], ids=repr)
def test_tokens_may_come_as_any_run_of_whole_numbers(cache: CacheProcess, tokens: Any) -> None:
    with connect(cache) as mine:
        mine.save([1, 2, 3], kv_of([1, 2, 3]))
        assert mine.lookup(tokens).tokens == 3


@pytest.mark.parametrize("tokens", [[-1], [2**32], [1.5], ["a"], b"abc", np.array([1.5])], ids=repr)
def test_what_is_no_token_id_is_a_mistake_of_the_caller(cache: CacheProcess, tokens: Any) -> None:
    with connect(cache) as mine, pytest.raises((TypeError, OverflowError)):
        mine.lookup(tokens)


@pytest.mark.parametrize(
    ("kv", "complaint"),
    [
        (np.zeros((3, 2, 3), "float16"), "shape"),
        (np.zeros((4, 3, 2), "float16"), "shape"),
        (np.zeros((4, 2, 3), "float32"), "elements of float32"),
        (bytes(47), "47 bytes"),
        (lambda first, count: np.zeros((count, 2, 4), "float16"), "shape"),
    ],
    ids=["tokens", "token shape", "dtype", "bytes", "function"],
)
def test_kv_of_another_shape_is_refused_and_nothing_of_it_is_kept(cache: CacheProcess, kv: Any, complaint: str) -> None:
    with connect(cache) as mine:
        with pytest.raises(RepriseError, match=complaint) as error:
            mine.save(range(4), kv)
        assert error.value.code == "BAD_REQUEST"
        assert mine.lookup(range(4)).tokens == 0
        assert mine.save(range(4), bytes(48)) == 4


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"engine": "other"}, {"dtype": "bfloat16"}, {"token_shape": (3, 2)}, {"salt": "s"}],
    ids=str,
)
def test_another_name_layout_or_salt_finds_nothing(cache: CacheProcess, change: dict[str, Any]) -> None:
    with connect(cache) as mine, connect(cache, **change) as other:
        mine.save([1, 2, 3], kv_of([1, 2, 3]))
        assert other.lookup([1, 2, 3]).tokens == 0


def test_a_cache_that_goes_is_a_miss_and_its_successor_is_used(folder: Path) -> None:
    tokens = list(range(10))
    first = CacheProcess(folder, disk=True)
    mine = connect(first)
    assert mine.save(tokens, kv_of(tokens)) == 10
    known = mine.load(tokens)
    first.stop()
    assert np.array_equal(known.chunks[0].array, kv_of([0, 1, 2, 3]))  # the memory is there, but counts for nothing
    assert not known.is_held()
    known.release()
    assert mine.lookup(tokens) == (0, {})
    assert mine.load(tokens).hit_tokens == 0
    assert mine.save(tokens, kv_of(tokens)) == 0
    assert mine.stats() == {}
    second = CacheProcess(folder, disk=True)
    assert mine.link.connect(5)
    eventually(lambda: mine.lookup(tokens) == (10, {"disk": 10}))
    assert mine.save([77] * 8, kv_of([77] * 8)) == 8  # takes the first places of the new pool
    assert np.array_equal(loaded(mine, tokens), kv_of(tokens))
    assert mine.stats()["lookups"] >= 1
    mine.close()
    second.stop()


def test_a_payload_of_another_length_is_not_taken_for_an_array(cache: CacheProcess) -> None:
    mine = connect(cache)
    raw = reprise.CacheLink(
        socket_path=cache.socket_path, space=mine.link.space, rank=0, slot_bytes=mine.link.slot_bytes
    )
    assert raw.connect(5)
    reserved = raw.reserve(reprise.tokens.pack_tokens(range(4)))
    assert reserved is not None
    assert raw.wait(reserved, 5)
    commit = raw.commit([(reserved.parts[0].lease, 7)])
    assert commit is not None
    assert raw.wait(commit, 5)
    assert mine.lookup(range(4)).tokens == 4
    assert mine.load(range(4)).hit_tokens == 0
    raw.close()
    mine.close()


def test_nobody_on_the_socket_is_an_error_that_says_so(folder: Path) -> None:
    with pytest.raises(RepriseError, match="nobody") as error:
        reprise.connect(socket=folder / "nobody", model="toy", dtype="int8", token_shape=(1,), timeout=0.1)
    assert error.value.code == "CACHE_UNAVAILABLE"


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float12"},
        {"token_shape": ()},
        {"token_shape": (0,)},
        {"model": ""},
        {"token_shape": (1 << 27,)},
        {"space": space(groups=("rows", "snapshot"))},
    ],
    ids=str,
)
def test_a_layout_that_cannot_be_is_refused(cache: CacheProcess, change: dict[str, Any]) -> None:
    with pytest.raises(RepriseError) as error:
        connect(cache, timeout=0.5, **change)
    assert error.value.code == "BAD_REQUEST"


def test_a_whole_space_shares_chunks_with_others_of_that_space(cache: CacheProcess) -> None:
    options: dict[str, Any] = {"space": space(), "dtype": "uint8", "token_shape": (64,)}
    with connect(cache, **options) as mine, connect(cache, **{**options, "model": "ignored"}) as other:
        assert mine.save(range(4), bytes(256)) == 4
        assert other.lookup(range(4)).tokens == 4


def test_the_example_reads_nothing_that_it_has_read_before(
    cache: CacheProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    example = str(REPOSITORY / "python" / "examples" / "own_engine.py")
    monkeypatch.setattr(sys, "argv", [example, cache.socket_path])
    runpy.run_path(example, run_name="__main__")
    runpy.run_path(example, run_name="__main__")
    first = ["0 of 1002 tokens are known", "1000 of 1002 tokens are known", "1000 of 1002 tokens are known"]
    known = [line for line in capsys.readouterr().out.splitlines() if line.endswith("are known")]
    assert known == [*first, *["1002 of 1002 tokens are known"] * 3]
