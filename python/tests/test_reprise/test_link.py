"""The link over a real cache: what goes out, what comes back, and what happens when the cache goes."""

from __future__ import annotations

import signal
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CHUNK_TOKENS, SLOT_BYTES, CacheProcess, eventually, space
from reprise import GRACE_SECONDS, CacheLink, Pool

SECONDS = 10.0


def counting(count: int, first: int = 1) -> array[int]:
    return array("I", range(first, first + count))


def link_to(cache: CacheProcess, **options: object) -> CacheLink:
    link = CacheLink(socket_path=cache.socket_path, space=space(), rank=0, slot_bytes=[SLOT_BYTES], **options)  # type: ignore[arg-type]
    assert link.connect(SECONDS), link.last_error
    return link


def save(link: CacheLink, tokens: array[int], **text: str) -> int:
    """Stores `tokens` as an engine would; each payload is its first token, 512 times. Returns the chunks written."""
    reserved = link.reserve(tokens, **text, deadline_ms=SECONDS * 1000)
    assert reserved is not None
    assert link.wait(reserved, SECONDS)
    pool = Pool(link.pool_path, link.pool_bytes)
    for part in reserved.parts:
        pool.slot(part.offset, 512)[:] = bytes([tokens[part.first_token] % 256]) * 512
    commit = link.commit([(part.lease, 512) for part in reserved.parts])
    assert commit is None or (link.wait(commit, SECONDS) and not commit.failed)
    pool.close()
    return len(reserved.parts)


def hit(link: CacheLink, tokens: array[int], **text: Any) -> int:
    found = link.lookup(tokens, **text, deadline_ms=SECONDS * 1000)
    assert found is not None
    assert link.wait(found, SECONDS)
    return found.hit_tokens


def until(condition: Callable[[], bool], link: CacheLink) -> None:
    """Polls as an engine does, between other things."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        link.poll()
        time.sleep(0.005)


def test_what_was_saved_is_found_and_loaded_byte_for_byte(link: CacheLink) -> None:
    tokens = counting(10)
    assert hit(link, tokens) == 0
    assert save(link, tokens) == 3
    assert hit(link, counting(9)) == 9
    load = link.load(tokens)
    assert load is not None
    assert link.wait(load, SECONDS)
    assert (load.found, load.failed, load.hit_tokens, load.tokens_by_tier) == (True, False, 10, {"memory": 10})
    spans = [(part.first_token, part.token_count, part.take, part.tier) for part in load.parts]
    assert spans == [(0, 4, 4, "memory"), (4, 4, 4, "memory"), (8, 2, 2, "memory")]
    pool = Pool(link.pool_path, link.pool_bytes)
    for part in load.parts:
        assert bytes(pool.slot(part.offset, part.bytes)) == bytes([tokens[part.first_token]]) * 512
        assert link.holds(part.lease)
    link.release([part.lease for part in load.parts])
    assert not any(link.holds(part.lease) for part in load.parts)
    pool.close()


def test_a_load_begins_with_the_chunk_that_contains_the_first_token_asked_for(link: CacheLink) -> None:
    save(link, counting(16))
    load = link.load(counting(16), from_token=6)
    assert load is not None
    assert link.wait(load, SECONDS)
    assert load.hit_tokens == 16
    assert [part.first_token for part in load.parts] == [4, 8, 12]


def test_salts_and_adapters_keep_texts_apart(link: CacheLink) -> None:
    save(link, counting(8), salt="one", adapter="a")
    assert hit(link, counting(8), salt="one", adapter="a") == 8
    assert hit(link, counting(8), salt="two", adapter="a") == 0
    assert hit(link, counting(8), salt="one", adapter="b") == 0


def test_a_load_of_what_is_ready_leaves_the_disk_alone_and_a_whole_one_reads_it(folder: Path) -> None:
    first = CacheProcess(folder, disk=True)
    link = link_to(first)
    save(link, counting(40))
    link.close()
    first.stop()
    second = CacheProcess(folder, disk=True)
    link = link_to(second)
    eventually(lambda: hit(link, counting(40)) == 40)
    ready = link.load(counting(40), only_ready=True)
    assert ready is not None
    assert link.wait(ready, SECONDS)
    assert (ready.hit_tokens, ready.tokens_by_tier, ready.parts) == (40, {"disk": 40}, [])
    load = link.load(counting(40), deadline_ms=SECONDS * 1000)
    assert load is not None
    assert link.wait_for_parts(load, 1, SECONDS)
    assert link.wait(load, SECONDS)
    assert [part.tier for part in load.parts] == ["disk"] * 10
    link.close()
    second.stop()


def test_many_requests_are_under_way_at_once(link: CacheLink) -> None:
    save(link, counting(40))
    lookups = [link.lookup(counting(count % 40 + 1)) for count in range(400)]
    for count, lookup in enumerate(lookups):
        assert lookup is not None
        assert link.wait(lookup, SECONDS)
        assert lookup.hit_tokens == count % 40 + 1
    assert link.pending_requests == 0


def test_a_text_as_long_as_a_message_holds_is_sent_in_pieces(link: CacheLink) -> None:
    tokens = array("I", bytes(4 * 2_200_000))
    found = link.lookup(tokens, deadline_ms=60_000)
    assert found is not None
    assert link.wait(found, 60)
    assert (found.failed, found.hit_tokens) == (False, 0)


def test_a_goodbye_gives_reserved_slots_back_at_once(cache: CacheProcess) -> None:
    leaving, staying = link_to(cache), link_to(cache)
    reserved = leaving.reserve(counting(8))
    assert reserved is not None
    assert leaving.wait(reserved, SECONDS)
    assert len(reserved.parts) == 2
    other = staying.reserve(counting(8))
    assert other is not None
    assert staying.wait(other, SECONDS)
    assert other.parts == []
    leaving.close()
    end = time.monotonic() + 3  # the leases of a connection that only broke would stand for five
    while time.monotonic() < end and save(staying, counting(8)) != 2:
        time.sleep(0.01)
    assert hit(staying, counting(8)) == 8
    staying.close()


def test_abandoned_slots_can_be_reserved_again(link: CacheLink) -> None:
    reserved = link.reserve(counting(8))
    assert reserved is not None
    assert link.wait(reserved, SECONDS)
    link.abandon([part.lease for part in reserved.parts])
    assert save(link, counting(8)) == 2


def test_a_cancelled_load_gives_its_chunks_back(link: CacheLink) -> None:
    save(link, counting(8))
    load = link.load(counting(8))
    assert load is not None
    assert link.wait(load, SECONDS)
    leases = [part.lease for part in load.parts]
    link.cancel(load)
    assert not any(link.holds(lease) for lease in leases)


def test_without_a_cache_every_request_is_refused_and_nothing_is_raised(folder: Path) -> None:
    link = CacheLink(socket_path=str(folder / "nobody"), space=space(), rank=0, slot_bytes=[SLOT_BYTES])
    assert not link.connect(0.05)
    link.poll()
    assert (link.state, link.epoch, link.fileno()) == ("down", 0, -1)
    assert link.lookup(counting(8)) is None
    assert link.load(counting(8)) is None
    assert link.reserve(counting(8)) is None
    assert link.commit([(1, 512)]) is None
    assert link.stats() is None
    link.release([1])
    link.abandon([1])
    assert link.counters["refused_requests"] == 4
    assert "nobody" in str(link.last_error)
    link.close()
    link.close()
    link.poll()


def test_a_cache_that_was_killed_fails_its_requests_and_its_successor_is_found(folder: Path) -> None:
    first = CacheProcess(folder)
    link = link_to(first)
    save(link, counting(8))
    load = link.load(counting(8))
    assert load is not None
    assert link.wait(load, SECONDS)
    first.process.send_signal(signal.SIGSTOP)
    lookup = link.lookup(counting(8), deadline_ms=60_000)
    assert lookup is not None
    first.kill()
    assert link.wait(lookup, SECONDS)
    assert lookup.failed
    assert (link.state, link.counters["lost_connections"]) == ("down", 1)
    assert not link.holds(load.parts[0].lease)

    second = CacheProcess(folder)
    old_epoch, old_pool = link.epoch, link.pool_path
    until(lambda: link.state == "up", link)
    assert link.epoch > old_epoch
    assert link.pool_path != old_pool
    assert link.last_error is None
    assert hit(link, counting(8)) == 0
    # The leases of the first connection mean nothing to the second, though the cache counts from 1 again.
    assert save(link, counting(8)) == 2
    again = link.load(counting(8))
    assert again is not None
    assert link.wait(again, SECONDS)
    link.release([part.lease for part in load.parts])
    assert all(link.holds(part.lease) for part in again.parts)
    link.close()
    second.stop()


def test_a_cache_that_stands_still_never_holds_up_the_loop(folder: Path) -> None:
    cache = CacheProcess(folder)
    link = link_to(cache, ping_seconds=60, outgoing_limit_bytes=1 << 20)
    cache.process.send_signal(signal.SIGSTOP)
    tokens = counting(32_000)
    longest, refused, pending = 0.0, 0, []
    for _ in range(200):
        started = time.monotonic()
        lookup = link.lookup(tokens, deadline_ms=20)
        link.poll()
        longest = max(longest, time.monotonic() - started)
        refused += lookup is None
        if lookup is not None:
            pending.append(lookup)
    assert refused > 150
    assert longest < 0.25  # on a busy machine; usually far below a millisecond
    time.sleep(0.03)
    link.poll()
    assert pending
    assert all(lookup.failed for lookup in pending)
    cache.process.send_signal(signal.SIGCONT)
    until(lambda: link.lookup(tokens) is not None, link)
    assert hit(link, counting(8)) == 0
    assert link.counters["lost_connections"] == 0
    link.close()
    cache.stop()


def test_the_time_of_the_last_good_poll_is_before_the_connection_broke(folder: Path) -> None:
    cache = CacheProcess(folder)
    link = link_to(cache)
    before = time.monotonic()
    link.poll()
    assert link.last_good >= before
    cache.kill()
    killed = time.monotonic()
    until(lambda: link.state == "down", link)
    assert before <= link.last_good < killed
    assert link.alive_since <= before
    link.close()


def test_leases_are_relied_on_for_the_grace_that_the_cache_gives_and_no_longer(folder: Path) -> None:
    cache = CacheProcess(folder)
    link = link_to(cache)
    epoch = link.epoch
    before = time.monotonic()
    link.poll()
    assert before + GRACE_SECONDS <= link.held_until(epoch) <= time.monotonic() + GRACE_SECONDS
    assert link.held_until(epoch + 1) == 0.0
    cache.kill()
    until(lambda: link.state == "down", link)
    last_good = link.last_good
    cache = CacheProcess(folder)
    until(lambda: link.state == "up", link)
    assert link.held_until(epoch) == last_good + GRACE_SECONDS
    assert link.held_until(link.epoch) > last_good + GRACE_SECONDS
    link.close()
    assert link.held_until(epoch) == 0.0
    cache.stop()


def test_a_cache_that_asks_for_a_token_refuses_those_without_it(folder: Path) -> None:
    cache = CacheProcess(folder, token="open sesame")
    stranger = CacheLink(socket_path=cache.socket_path, space=space(), rank=0, slot_bytes=[SLOT_BYTES])
    assert not stranger.connect(0.5)
    assert "token" in str(stranger.last_error)
    stranger.close()
    link_to(cache, token="open sesame").close()
    cache.stop()


def test_the_figures_of_the_cache_can_be_asked_for(link: CacheLink) -> None:
    save(link, counting(CHUNK_TOKENS))
    stats = link.stats()
    assert stats is not None
    assert link.wait(stats, SECONDS)
    assert stats.stats["savedChunks"] == 1


def test_a_cache_can_be_made_to_forget_everything(link: CacheLink) -> None:
    save(link, counting(8))
    load = link.load(counting(4))
    assert load is not None
    assert link.wait(load, SECONDS)
    clear = link.clear()
    assert clear is not None
    assert link.wait(clear, SECONDS)
    assert clear.chunks_in_use == 1
    assert clear.bytes_by_tier["memory"] > 0
    link.release([part.lease for part in load.parts])
    assert hit(link, counting(8)) == 0


@pytest.mark.parametrize("tokens", [b"123", memoryview(b"12345678")[::2], array("Q", [1]), array("f", [1.0])], ids=str)
def test_tokens_that_are_no_run_of_u32_are_a_mistake_of_the_caller(link: CacheLink, tokens: bytes) -> None:
    with pytest.raises(TypeError):
        link.lookup(tokens)
