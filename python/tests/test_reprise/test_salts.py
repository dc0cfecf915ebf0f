"""No text or number that a client chooses ends a link, or another's hits."""

from __future__ import annotations

import math
import random
from array import array
from typing import Any

import pytest

from conftest import SLOT_BYTES, CacheProcess, space
from reprise import CacheLink, RepriseError
from reprise.connection import whole_number
from reprise.keys import text_bytes
from reprise.kinds import MAX_DEADLINE_MS, MAX_NUMBER
from support.depth import rounds


def counting(length: int, start: int = 1) -> array[int]:
    return array("I", range(start, start + length))


def any_text(rng: random.Random) -> str:
    """Any characters, halves of some among them; now and then a million."""
    odd = ["\0", "\ud800", "\udfff", "\ufeff", "\ufffd", "\n", "\U0001f511"]
    characters = [
        rng.choice(odd) if rng.random() < 0.4 else chr(rng.randrange(0x110000)) for _ in range(rng.randrange(40))
    ]
    return "".join(characters) * rng.choice([1, 1, 1, 0, 26, 103, 1024, 26_215])


def save(link: CacheLink, tokens: array[int], salt: str = "", adapter: str = "") -> int:
    pending = link.reserve(tokens, salt, adapter)
    assert pending is not None and link.wait(pending, 10)
    commit = link.commit([(part.lease, 512) for part in pending.parts])
    assert commit is None or link.wait(commit, 10)
    return len(pending.parts)


def hit(link: CacheLink, tokens: array[int], salt: str = "", adapter: str = "") -> int:
    pending = link.lookup(tokens, salt, adapter)
    assert pending is not None and link.wait(pending, 10)
    return pending.hit_tokens


def test_any_text_as_salt_or_adapter_is_stored_under_and_found_and_nobody_is_disconnected(
    cache: CacheProcess, link: CacheLink
) -> None:
    rng = random.Random(7)
    known = counting(40, 900_000)
    save(link, known)
    for _ in range(rounds(small=30, full=100)):
        salt, adapter, tenant = any_text(rng), any_text(rng), any_text(rng)
        odd = CacheLink(socket_path=cache.socket_path, space=space(), rank=0, slot_bytes=[SLOT_BYTES], tenant=tenant)
        assert odd.connect(5), odd.last_error
        tokens = counting(8, 1 + len(salt) % 100)
        save(odd, tokens, salt=salt, adapter=adapter)
        assert hit(odd, tokens, salt=salt, adapter=adapter) == 8
        assert hit(odd, tokens, salt=salt + "\udc01", adapter=adapter) == 0
        assert hit(link, known) == 40
        assert odd.counters["lost_connections"] == 0
        odd.close()
    assert link.counters["lost_connections"] == 0


@pytest.mark.parametrize("salt", [5, b"s", ["s"], {"s": 1}, None, 1.5])
def test_what_is_no_text_is_refused_here(link: CacheLink, salt: Any) -> None:
    with pytest.raises(TypeError, match="salt must be a text"):
        link.lookup(counting(4), salt=salt)
    assert link.pending_requests == 0


def test_numbers_that_no_message_can_carry_are_brought_within_its_limits(link: CacheLink) -> None:
    tokens = counting(8)
    save(link, tokens)
    for number in (math.nan, math.inf, -math.inf, -1, 0.5, 2**60, 2**70, 1e300):
        for pending in (
            link.lookup(tokens, compute_ms_per_token=number),
            link.lookup(tokens, deadline_ms=number),
            link.load(tokens, from_token=number),  # type: ignore[arg-type]
        ):
            assert pending is not None
            link.wait(pending, 10)
            link.cancel(pending)
        reserved = link.reserve(counting(4), salt=str(number))
        assert reserved is not None and link.wait(reserved, 10)
        assert len(reserved.parts) == 1
        link.commit([(reserved.parts[0].lease, -4 if number == 0.5 else number)])  # type: ignore[list-item]
        assert not link.holds(reserved.parts[0].lease)
    assert hit(link, tokens) == 8
    assert link.counters["lost_connections"] == 0
    pending_stats = link.stats()
    assert pending_stats is not None and link.wait(pending_stats, 10)
    assert pending_stats.stats["leases"] == 0


def test_a_number_is_whole_and_within_its_limit() -> None:
    expected = {math.nan: 0, math.inf: MAX_NUMBER, -math.inf: 0, -1: 0, 0: 0, 0.1: 1, 7: 7, 2**70: MAX_NUMBER}
    assert {number: whole_number(number) for number in expected} == expected
    assert whole_number(math.inf, MAX_DEADLINE_MS) == MAX_DEADLINE_MS


def test_a_space_or_token_that_does_not_fit_a_message_is_refused_before_anything_is_sent() -> None:
    for change in ({"space": space(weights="x" * 5000)}, {"token": "x" * 5000}, {"token": "\ud800"}):
        arguments: dict[str, Any] = {"socket_path": "/dev/null/none", "space": space(), "rank": 0, "slot_bytes": [1]}
        with pytest.raises(RepriseError) as refused:
            CacheLink(**{**arguments, **change})
        assert refused.value.code == "BAD_REQUEST"


@pytest.mark.parametrize(
    ("groups", "slot_bytes"),
    [(None, []), (None, [1, 1]), (("rows", "snapshot"), [1]), (("rows",) * 65, [1] * 65)],
    ids=["none", "two for one", "one for two", "too many"],
)
def test_a_link_takes_one_size_of_slots_for_each_group(groups: tuple[str, ...] | None, slot_bytes: list[int]) -> None:
    with pytest.raises(RepriseError) as refused:
        CacheLink(socket_path="/dev/null/none", space=space(groups=groups), rank=0, slot_bytes=slot_bytes)
    assert refused.value.code == "BAD_REQUEST"


def test_texts_that_differ_differ_in_their_bytes() -> None:
    rng = random.Random(3)
    texts = {any_text(rng)[:60] for _ in range(2000)}
    assert len({text_bytes(text) for text in texts}) == len(texts)
    assert text_bytes("\ud83d\ude00") == text_bytes("\U0001f600")  # as JavaScript has it
