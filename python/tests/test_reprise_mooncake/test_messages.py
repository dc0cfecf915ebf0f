"""What the process of Mooncake's client takes, and what it refuses: its parent's words are checked like anybody's."""

import json
import socket
import struct

import pytest

from reprise_mooncake.messages import (
    MOST_FRAME_BYTES,
    Gather,
    Move,
    ProtocolError,
    parse_opening,
    parse_request,
    receive,
    send,
)

OPENING = {"master": "a:1", "host": "", "protocol": "tcp", "device": "", "metadata": "P2PHANDSHAKE", "segment": 0}
MOVE = {"id": 1, "do": "put", "names": ["a", "b"], "at": [0, 50], "bytes": [50, 50]}
GATHER = {"id": 2, "do": "gather", "names": ["a"], "at": 10, "bytes": 90, "most": 20}


def test_what_is_right_is_taken() -> None:
    assert parse_opening(json.dumps(OPENING).encode()).master == "a:1"
    assert parse_request(json.dumps(MOVE).encode(), 100) == Move(1, True, ["a", "b"], [0, 50], [50, 50])
    assert parse_request(json.dumps({**MOVE, "do": "get"}).encode(), 100) == Move(
        1, False, ["a", "b"], [0, 50], [50, 50]
    )
    assert parse_request(json.dumps(GATHER).encode(), 100) == Gather(2, ["a"], 10, 90, 20)


@pytest.mark.parametrize(
    "change",
    [
        {"do": "remove"},
        {"do": "gather"},
        {"id": -1},
        {"id": True},
        {"id": 1.5},
        {"names": []},
        {"names": ["a"] * 1025, "at": [0] * 1025, "bytes": [1] * 1025},
        {"names": ["a", ""]},
        {"names": ["a", "b" * 513]},
        {"names": ["a", 7]},
        {"names": "ab"},
        {"at": [0]},
        {"at": [0, 51]},
        {"at": [0, -1]},
        {"bytes": [50, 51]},
        {"bytes": [50, True]},
        {"at": {}, "bytes": {}},
        {"more": 1},
        {"most": 1},
    ],
)
def test_a_move_with_anything_wrong_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        parse_request(json.dumps({**MOVE, **change}).encode(), 100)


@pytest.mark.parametrize(
    "change", [{"at": 11}, {"at": [0]}, {"most": 101}, {"most": -1}, {"bytes": 91}, {"names": None}]
)
def test_a_gather_beyond_the_memory_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        parse_request(json.dumps({**GATHER, **change}).encode(), 100)


@pytest.mark.parametrize("frame", [b"", b"{", b"[]", b"7", b'{"id":1}', b"\xff\xfe", b"[" * 100_000])
def test_other_frames_are_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_request(frame, 100)
    with pytest.raises(ProtocolError):
        parse_opening(frame)


@pytest.mark.parametrize("change", [{"segment": -1}, {"segment": "1"}, {"master": 5}, {"device": "d" * 513}, {"x": ""}])
def test_an_opening_with_anything_wrong_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        parse_opening(json.dumps({**OPENING, **change}).encode())


def test_frames_have_a_limit_and_an_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, {"state": "ready", "why": ""})
        assert receive(ours) == b'{"state":"ready","why":""}'
        theirs.sendall(struct.pack("<I", MOST_FRAME_BYTES + 1))
        with pytest.raises(ProtocolError):
            receive(ours)
        theirs.sendall(struct.pack("<I", 100) + b"half of it")
        theirs.close()
        assert receive(ours) is None
