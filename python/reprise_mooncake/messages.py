"""What Reprise and the process say to each other: frames of JSON behind their length, checked field by field.

u32 length, little-endian │ JSON, UTF-8

► {"master", "host", "protocol", "device", "metadata", "segment"}     the first one: whom to connect to, and how
◄ {"state": "absent" | "away" | "connecting" | "ready", "why"}        how it stands, as often as that changes
► {"id", "do": "get" | "put", "names", "at", "bytes"}                 values, each with its place in the memory
► {"id", "do": "gather", "names", "at", "bytes", "most"}              small values, one behind the other
◄ {"id", "results"}                                                   a length or an error code for each name
"""

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

#: Of a frame, in either direction.
MOST_FRAME_BYTES = 256 * 1024
MOST_NAMES = 1024
MOST_NAME_LENGTH = 512

_length = struct.Struct("<I")
_opening_fields = frozenset({"master", "host", "protocol", "device", "metadata", "segment"})
_request_fields = frozenset({"id", "do", "names", "at", "bytes"})


class ProtocolError(Exception):
    """What came is not what Reprise says."""


@dataclass(frozen=True)
class Opening:
    """Whom to connect to."""

    master: str
    #: Under which name other clients reach this one; "": found out.
    host: str
    protocol: str
    device: str
    metadata: str
    #: Bytes that this process gives to the pool.
    segment: int


@dataclass(frozen=True)
class Move:
    """Values to get or to put, each of them at its place."""

    id: int
    is_put: bool
    names: list[str]
    at: list[int]
    bytes: list[int]


@dataclass(frozen=True)
class Gather:
    """Small values of which nobody knows the lengths."""

    id: int
    names: list[str]
    at: int
    bytes: int
    #: Longer ones are not wanted.
    most: int


def receive(channel: socket.socket) -> bytes | None:
    """The next frame; None when the other side is gone."""
    head = _receive_exactly(channel, _length.size)
    if head is None:
        return None
    (length,) = _length.unpack(head)
    if length > MOST_FRAME_BYTES:
        raise ProtocolError(f"a frame of {length} bytes")
    return _receive_exactly(channel, length)


def send(channel: socket.socket, message: dict[str, object]) -> None:
    """Sends a frame."""
    text = json.dumps(message, separators=(",", ":")).encode()
    channel.sendall(_length.pack(len(text)) + text)


def parse_opening(frame: bytes) -> Opening:
    """The first frame."""
    fields = _object(frame, _opening_fields)
    text = {name: _text(fields, name) for name in ("master", "host", "protocol", "device", "metadata")}
    return Opening(**text, segment=_count(fields["segment"], 2**48))


def parse_request(frame: bytes, memory_bytes: int) -> Move | Gather:
    """Every later frame. All places are within the memory."""
    fields = _object(frame, _request_fields, frozenset({"most"}))
    number = _count(fields["id"], 2**53)
    names = _list(fields, "names")
    if not all(isinstance(name, str) and 0 < len(name) <= MOST_NAME_LENGTH for name in names):
        raise ProtocolError("a name of a wrong length")
    if fields["do"] == "gather" and "most" in fields:
        at, room = _within(fields["at"], fields["bytes"], memory_bytes)
        return Gather(number, names, at, room, _count(fields["most"], memory_bytes))
    if fields["do"] not in {"get", "put"} or "most" in fields:
        raise ProtocolError("a request of an unknown kind")
    at_list, bytes_list = _list(fields, "at"), _list(fields, "bytes")
    if not len(names) == len(at_list) == len(bytes_list):
        raise ProtocolError("as many places as names are needed")
    for at, length in zip(at_list, bytes_list, strict=True):
        _within(at, length, memory_bytes)
    return Move(number, fields["do"] == "put", names, at_list, bytes_list)


def _receive_exactly(channel: socket.socket, count: int) -> bytes | None:
    received = bytearray()
    while len(received) < count:
        piece = channel.recv(count - len(received))
        if not piece:
            return None
        received += piece
    return bytes(received)


def _object(frame: bytes, needed: frozenset[str], optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    try:
        value = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("no JSON") from error
    if not isinstance(value, dict) or not needed <= value.keys() <= needed | optional:
        raise ProtocolError("other fields than expected")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or len(value) > MOST_NAME_LENGTH:
        raise ProtocolError(f"{name} is no short text")
    return value


def _count(value: object, most: int) -> int:
    # A bool is an int in Python, and none here.
    if type(value) is not int or not 0 <= value <= most:
        raise ProtocolError("a number out of its bounds")
    return value


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields[name]
    if not isinstance(value, list) or not 0 < len(value) <= MOST_NAMES:
        raise ProtocolError(f"{name} is no list of up to {MOST_NAMES}")
    return value


def _within(at: object, length: object, memory_bytes: int) -> tuple[int, int]:
    start = _count(at, memory_bytes)
    return start, _count(length, memory_bytes - start)
