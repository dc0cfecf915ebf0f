"""The link against peers that are broken, late or hostile, spoken by hand."""

import socket
import struct
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import SLOT_BYTES, space
from reprise import Cache, CacheLink, ProtocolError
from reprise.protocol import PROTOCOL_VERSION
from reprise.token_format import TokenFormat

TOKENS = array("I", range(8))


class Peer:
    """The other end of a link, in the same thread."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "peer.sock")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self.connection: socket.socket | None = None

    def accept(self) -> None:
        self.connection = self._listener.accept()[0]
        self.connection.settimeout(5)

    def read(self) -> dict[str, Any]:
        assert self.connection is not None
        (length,) = struct.unpack("<I", self._exactly(4))
        message: dict[str, Any] = msgspec.msgpack.decode(self._exactly(length))
        return message

    def write(self, *messages: dict[str, Any]) -> None:
        bodies = [msgspec.msgpack.encode(message) for message in messages]
        self.write_raw(b"".join(struct.pack("<I", len(body)) + body for body in bodies))

    def write_raw(self, raw: bytes) -> None:
        assert self.connection is not None
        self.connection.sendall(raw)

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self._listener.close()

    def _exactly(self, count: int) -> bytes:
        assert self.connection is not None
        read = b""
        while len(read) < count:
            piece = self.connection.recv(count - len(read))
            assert piece
            read += piece
        return read


@pytest.fixture
def peer(folder: Path) -> Iterator[Peer]:
    peer = Peer(folder)
    yield peer
    peer.close()


def link_to(peer: Peer, **options: Any) -> CacheLink:
    return CacheLink(**{"socket_path": peer.path, "space": space(), "rank": 0, "slot_bytes": [SLOT_BYTES], **options})


def welcome(link: CacheLink, hello: dict[str, Any], **change: Any) -> dict[str, Any]:
    fields = {"type": "welcome", "id": hello["id"], "version": PROTOCOL_VERSION, "features": []}
    return {
        **fields,
        "spaceId": link.space_id,
        "poolPath": "/dev/null",
        "poolBytes": 65536,
        "poolCapacityBytes": 65536,
        **change,
    }


def link_that_is_up(peer: Peer, **options: Any) -> CacheLink:
    link = link_to(peer, **options)
    link.poll()
    peer.accept()
    peer.write(welcome(link, peer.read()))
    assert link.connect(5)
    return link


def test_the_handshake_waits_for_nobody(peer: Peer) -> None:
    link = link_to(peer)
    link.poll()
    assert link.state == "handshake"
    assert link.lookup(TOKENS) is None
    peer.accept()
    hello = peer.read()
    assert (hello["space"]["chunkTokens"], hello["space"]["groups"], hello["slotBytes"]) == (4, None, [SLOT_BYTES])
    link.poll()
    assert link.state == "handshake"
    peer.write(welcome(link, hello))
    link.poll()
    assert (link.state, link.pool_path, link.pool_bytes) == ("up", "/dev/null", 65536)


def test_a_handshake_that_nobody_answers_ends(peer: Peer) -> None:
    link = link_to(peer, handshake_seconds=0.02)
    assert not link.connect(0.05)
    assert link.counters["failed_connections"] >= 1
    assert "did not answer" in str(link.last_error)


@pytest.mark.parametrize("change", [{"version": 1}, {"spaceId": "00"}, {"poolBytes": -1}, {"more": 1}], ids=str)
def test_a_welcome_that_does_not_fit_is_refused(peer: Peer, change: dict[str, Any]) -> None:
    link = link_to(peer)
    link.poll()
    peer.accept()
    peer.write(welcome(link, peer.read(), **change))
    link.poll()
    assert link.state == "down"
    assert link.last_error is not None


def test_a_prefetch_that_is_interrupted_is_called_off(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    link = link_that_is_up(peer)
    cache = Cache(link, TokenFormat("float16", (2,)), salt="", adapter="", deadline_ms=5000)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(link, "_sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.prefetch(TOKENS)
    asked, called_off = peer.read(), peer.read()
    assert (asked["type"], called_off) == ("prefetch", {"type": "cancel", "id": asked["id"]})
    assert link.pending_requests == 0


def test_an_answer_after_the_deadline_is_not_used_and_its_leases_go_back(peer: Peer) -> None:
    link = link_that_is_up(peer)
    load, reserve = link.load(TOKENS, deadline_ms=10), link.reserve(TOKENS, deadline_ms=10)
    assert load is not None
    assert reserve is not None
    assert link.wait(load, 5)
    assert link.wait(reserve, 5)
    assert load.failed
    assert reserve.failed
    assert link.counters["late_requests"] == 2
    assert [peer.read()["type"] for _ in range(4)] == ["load", "reserve", "cancel", "cancel"]
    peer.write(
        {"type": "found", "id": load.id, "segments": [[0, 0, 0, 8, 1]], "worthTokens": 8, "more": False},
        {
            "type": "parts",
            "id": load.id,
            "parts": [[1, 0, 0, 0, 4, 0, 4, 0, 1, 0, 512], [2, 0, 0, 4, 4, 0, 4, 4, 1, 8192, 512]],
        },
        {"type": "loaded", "id": load.id},
        {"type": "reserved", "id": reserve.id, "full": False, "parts": [[3, 0, 0, 4, 0, 8192]]},
    )
    link.poll()
    assert (load.parts, reserve.parts) == ([], [])
    assert peer.read() == {"type": "release", "leases": [1, 2]}
    assert peer.read() == {"type": "abandon", "leases": [3]}
    assert link.state == "up"


def test_an_answer_that_waits_in_the_socket_counts_however_late_the_engine_looks(peer: Peer) -> None:
    link = link_that_is_up(peer)
    lookup = link.lookup(TOKENS, deadline_ms=5)
    assert lookup is not None
    peer.write({"type": "found", "id": lookup.id, "segments": [[0, 0, 0, 8, 1]], "worthTokens": 8, "more": False})
    time.sleep(0.01)
    link.poll()
    assert (lookup.done, lookup.failed, lookup.hit_tokens) == (True, False, 8)


def test_parts_that_came_before_the_deadline_may_be_used(peer: Peer) -> None:
    link = link_that_is_up(peer)
    load = link.load(TOKENS, deadline_ms=20)
    assert load is not None
    peer.write(
        {"type": "found", "id": load.id, "segments": [[0, 0, 0, 8, 1]], "worthTokens": 8, "more": False},
        {"type": "parts", "id": load.id, "parts": [[1, 0, 0, 0, 4, 0, 4, 0, 1, 0, 512]]},
    )
    assert link.wait(load, 5)
    assert load.failed
    assert [link.holds(part.lease) for part in load.parts] == [True]


def test_a_refused_request_fails_alone(peer: Peer) -> None:
    link = link_that_is_up(peer)
    lookup, other = link.lookup(TOKENS), link.lookup(TOKENS)
    assert lookup is not None
    assert other is not None
    peer.write({"type": "error", "id": lookup.id, "code": "QUEUE_FULL", "message": "1024 requests wait already"})
    link.poll()
    assert (lookup.done, lookup.failed, other.done, link.state) == (True, True, False, "up")


def test_more_requests_than_may_wait_are_refused(peer: Peer) -> None:
    link = link_that_is_up(peer)
    sent = [link.lookup(TOKENS) for _ in range(1100)]
    assert sum(lookup is not None for lookup in sent) == 1024


@pytest.mark.parametrize(
    "answer",
    [
        {"type": "pong", "id": 99},
        {"type": "pong", "id": 2},
        {"type": "committed", "id": 2},
        {"type": "parts", "id": 2, "parts": []},
        {"type": "found", "id": 2, "segments": [[0, 0, 0, "8", 1]], "worthTokens": 8, "more": False},
        {"type": "welcome", "id": 2},
    ],
    ids=str,
)
def test_a_cache_that_answers_something_else_is_disconnected(peer: Peer, answer: dict[str, Any]) -> None:
    link = link_that_is_up(peer)
    lookup = link.lookup(TOKENS)
    assert lookup is not None
    assert lookup.id == 2
    peer.write(answer)
    link.poll()
    assert (link.state, lookup.done, lookup.failed) == ("down", True, True)
    assert link.counters["lost_connections"] == 1


@pytest.mark.parametrize(
    "part",
    [
        [1, 0, 0, 0, 4, 0, 4, 0, 1, 65536, 1],  # not in the pool
        [2**36, 0, 0, 0, 4, 0, 4, 0, 1, 0, 1],  # no lease can be
        [1, 1, 0, 0, 4, 0, 4, 0, 1, 0, 1],  # the space has one group
    ],
    ids=str,
)
def test_a_slot_that_cannot_be_is_never_named_to_the_engine(peer: Peer, part: list[int]) -> None:
    link = link_that_is_up(peer)
    load = link.load(TOKENS)
    assert load is not None
    peer.write(
        {"type": "found", "id": load.id, "segments": [[0, 0, 0, 8, 1]], "worthTokens": 8, "more": False},
        {"type": "parts", "id": load.id, "parts": [part]},
    )
    link.poll()
    assert (link.state, load.parts, load.failed) == ("down", [], True)
    assert isinstance(link.last_error, ProtocolError)


def test_a_part_is_of_one_of_the_groups_that_the_space_has(peer: Peer) -> None:
    link = link_that_is_up(peer, space=space(groups=("rows", "snapshot")), slot_bytes=[SLOT_BYTES, 512])
    reserve = link.reserve(TOKENS)
    assert reserve is not None
    parts = [[1, 0, 4, 4, 0, 8192], [2, 1, 4, 4, 8192, 512]]
    peer.write({"type": "reserved", "id": reserve.id, "full": False, "parts": parts})
    link.poll()
    assert [(part.group, link.holds(part.lease)) for part in reserve.parts] == [(0, True), (1, True)]
    again = link.reserve(TOKENS)
    assert again is not None
    peer.write({"type": "reserved", "id": again.id, "full": False, "parts": [[3, 2, 4, 4, 0, 512]]})
    link.poll()
    assert (link.state, again.parts, again.failed) == ("down", [], True)
    assert isinstance(link.last_error, ProtocolError)


@pytest.mark.parametrize("raw", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x01\x00\x00\x00\xc1"], ids=repr)
def test_bytes_that_are_no_frame_end_the_connection(peer: Peer, raw: bytes) -> None:
    link = link_that_is_up(peer)
    peer.write_raw(raw)
    link.poll()
    assert link.state == "down"


def test_an_idle_cache_is_asked_for_a_sign_of_life_and_given_up_without_one(peer: Peer) -> None:
    link = link_that_is_up(peer, ping_seconds=0.02)
    time.sleep(0.03)
    link.poll()
    ping = peer.read()
    assert ping["type"] == "ping"
    peer.write({"type": "pong", "id": ping["id"]})
    link.poll()
    assert link.counters["lost_connections"] == 0
    time.sleep(0.03)
    link.poll()
    assert peer.read()["type"] == "ping"
    time.sleep(0.03)
    link.poll()
    assert link.state == "down"
    assert "sign of life" in str(link.last_error)


def test_attempts_to_connect_become_rarer(folder: Path) -> None:
    link = CacheLink(socket_path=str(folder / "nobody"), space=space(), rank=0, slot_bytes=[SLOT_BYTES])
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        link.poll()
    assert 2 <= link.counters["failed_connections"] <= 4  # at 0, 100 and 300 ms
