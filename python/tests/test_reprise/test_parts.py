"""A guest of a space with snapshots, over a real `reprise cache`: rows of all chunks, and the state after the last."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CHUNK_TOKENS, eventually, space
from reprise import CacheLink, LoadedPart, Pool, ReservedPart
from support.cache_process import Cache

SECONDS = 10.0
ROWS, SNAPSHOT = 0, 1
#: Bytes of a token's rows, and of the state after any token: a slot of each group has another size.
ROW_BYTES = 2048
STATE_BYTES = 20_480


class Guest:
    """A model with rows and a state, whose payloads tell their group and the text's last token in them."""

    def __init__(self, cache: Cache) -> None:
        self.link = CacheLink(
            socket_path=cache.socket,
            space=space(groups=("rows", "snapshot")),
            rank=0,
            slot_bytes=[CHUNK_TOKENS * ROW_BYTES, STATE_BYTES],
        )
        assert self.link.connect(SECONDS), self.link.last_error
        self.pool = Pool(self.link.pool_path, self.link.pool_bytes)

    def reserve(self, tokens: array[int]) -> list[ReservedPart]:
        """What is missing of a text, written into its slots but not committed yet."""
        reserved = self.link.reserve(tokens, deadline_ms=SECONDS * 1000)
        assert reserved is not None and self.link.wait(reserved, SECONDS)
        assert not (reserved.failed or reserved.full)
        for part in reserved.parts:
            assert part.bytes == self.link.slot_bytes[part.group], "the room of its group's slots"
            payload = payload_of(part, tokens)
            self.pool.slot(part.offset, len(payload))[:] = payload
        return reserved.parts

    def commit(self, parts: list[ReservedPart], tokens: array[int]) -> None:
        commit = self.link.commit([(part.lease, len(payload_of(part, tokens))) for part in parts], SECONDS * 1000)
        assert commit is not None and self.link.wait(commit, SECONDS) and not commit.failed

    def save(self, tokens: array[int]) -> list[tuple[int, int, int]]:
        """Stores what is missing. Returns (group, first token, tokens) of each part."""
        parts = self.reserve(tokens)
        if parts:
            self.commit(parts, tokens)
        return [(part.group, part.first_token, part.token_count) for part in parts]

    def hit(self, tokens: array[int]) -> int:
        found = self.link.lookup(tokens, deadline_ms=SECONDS * 1000)
        assert found is not None and self.link.wait(found, SECONDS) and not found.failed
        return found.hit_tokens

    def load(self, tokens: array[int], from_token: int = 0) -> Loaded:
        """What is known of a text, each payload compared with what was written."""
        pending = self.link.load(tokens, from_token=from_token, deadline_ms=SECONDS * 1000)
        assert pending is not None and self.link.wait(pending, SECONDS)
        assert pending.found and not pending.failed
        for part in pending.parts:
            assert (part.kind, part.skip, part.take) == ("exact", 0, part.token_count), "no part of a chunk"
            assert part.target == part.first_token
            assert bytes(self.pool.slot(part.offset, part.bytes)) == payload_of(part, tokens)
            assert self.link.holds(part.lease)
        leases = [part.lease for part in pending.parts]
        assert len(set(leases)) == len(leases), "each part has a lease of its own"
        self.link.release(leases)
        return Loaded(pending.parts)

    def close(self) -> None:
        self.pool.close()
        self.link.close()


class Loaded:
    """What a load brought: first tokens of the chunks whose rows and whose snapshots came, in order of arrival."""

    def __init__(self, parts: list[LoadedPart]) -> None:
        self.rows = [part.first_token for part in parts if part.group == ROWS]
        self.snapshots = [part.first_token for part in parts if part.group == SNAPSHOT]
        self.tiers = {part.tier for part in parts}


def payload_of(part: LoadedPart | ReservedPart, tokens: array[int]) -> bytes:
    count = STATE_BYTES if part.group == SNAPSHOT else part.token_count * ROW_BYTES
    return bytes([part.group, tokens[part.first_token + part.token_count - 1]]) * (count // 2)


def counting(count: int, first: int = 1) -> array[int]:
    return array("I", range(first, first + count))


@pytest.fixture
def cache(folder: Path) -> Iterator[Cache]:
    cache = Cache(folder, memory="256MiB", disk="256MiB")
    yield cache
    cache.stop()


@pytest.fixture
def guest(cache: Cache) -> Iterator[Guest]:
    guest = Guest(cache)
    yield guest
    guest.close()


def test_rows_of_all_chunks_and_the_state_at_the_end_are_saved_found_and_loaded(guest: Guest) -> None:
    assert guest.hit(counting(10)) == 0
    assert guest.save(counting(10)) == [(ROWS, 0, 4), (ROWS, 4, 4), (ROWS, 8, 2), (SNAPSHOT, 8, 2)]
    assert guest.save(counting(10)) == []
    assert [guest.hit(counting(count)) for count in (9, 10, 13)] == [0, 10, 10]
    loaded = guest.load(counting(13))
    assert (loaded.rows, loaded.snapshots, loaded.tiers) == ([0, 4, 8], [8], {"memory"})
    nothing = guest.load(counting(9))
    assert (nothing.rows, nothing.snapshots) == ([], [])


def test_a_stored_prefix_ends_where_there_is_a_state(guest: Guest) -> None:
    assert guest.save(counting(8)) == [(ROWS, 0, 4), (ROWS, 4, 4), (SNAPSHOT, 4, 4)]
    assert guest.save(counting(20)) == [(ROWS, 8, 4), (ROWS, 12, 4), (ROWS, 16, 4), (SNAPSHOT, 16, 4)]
    assert [guest.hit(counting(count)) for count in (7, 8, 11, 12, 19, 20)] == [0, 8, 8, 8, 8, 20]
    whole, begun, rest = guest.load(counting(20)), guest.load(counting(19)), guest.load(counting(20), from_token=10)
    assert (whole.rows, whole.snapshots) == ([0, 4, 8, 12, 16], [16])
    assert (begun.rows, begun.snapshots) == ([0, 4], [4])
    assert (rest.rows, rest.snapshots) == ([8, 12, 16], [16])


def test_a_state_is_stored_where_the_rows_are_there_already(guest: Guest) -> None:
    tokens = counting(12)
    parts = guest.reserve(tokens)
    guest.commit([part for part in parts if part.group == ROWS], tokens)
    assert guest.hit(tokens) == 0, "rows alone are of no use"
    guest.link.abandon([part.lease for part in parts if part.group == SNAPSHOT])
    assert guest.hit(tokens) == 0
    assert guest.save(counting(8)) == [(SNAPSHOT, 4, 4)]
    assert guest.hit(tokens) == 8
    assert guest.save(tokens) == [(SNAPSHOT, 8, 4)]
    assert guest.hit(tokens) == 12
    loaded = guest.load(tokens)
    assert (loaded.rows, loaded.snapshots) == ([0, 4, 8], [8])


def test_rows_and_states_come_back_from_the_disk(cache: Cache) -> None:
    first = Guest(cache)
    first.save(counting(8))
    first.save(counting(20))
    first.close()
    cache.stop()
    cache.start()
    second = Guest(cache)
    eventually(lambda: second.hit(counting(20)) == 20)
    begun, whole = second.load(counting(19)), second.load(counting(20))
    assert (begun.rows, begun.snapshots, begun.tiers) == ([0, 4], [4], {"disk"})
    assert (whole.rows, whole.snapshots) == ([0, 4, 8, 12, 16], [16])
    second.close()
