"""Frames: how messages are cut out of a stream of bytes, each a u32 LE length and a MessagePack map."""

import struct
from typing import Final

import msgspec

from reprise.errors import ProtocolError
from reprise.protocol import Answer, Request

#: Until the handshake is done a peer sends no longer frame.
MAX_HELLO_BYTES: Final = 64 * 1024
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


def encode_frame(message: Request) -> bytearray:
    """The message as it goes over the socket, length first."""
    frame = bytearray(4)
    _encoder.encode_into(message, frame, 4)
    struct.pack_into("<I", frame, 0, len(frame) - 4)
    return frame


def parse_answer(body: bytes) -> Answer:
    """Reads a cache's message. Raises ProtocolError unless every field is as it must be."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the cache sent a message that is not of its protocol: {error}") from error


class FrameReader:
    """Cuts messages out of a stream of bytes."""

    def __init__(self) -> None:
        #: The longest frame accepted from now on.
        self.limit_bytes = MAX_HELLO_BYTES
        self._pending = bytearray()

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._pending)

    def push(self, piece: bytes) -> list[bytes]:
        """The bodies that are whole now. Raises ProtocolError when a frame is empty or longer than allowed."""
        self._pending += piece
        bodies: list[bytes] = []
        start = 0
        while len(self._pending) - start >= 4:
            (length,) = struct.unpack_from("<I", self._pending, start)
            if length == 0 or length > self.limit_bytes:
                raise ProtocolError(f"the cache sent a frame of {length} bytes; {self.limit_bytes} are allowed")
            if len(self._pending) - start - 4 < length:
                break
            bodies.append(bytes(memoryview(self._pending)[start + 4 : start + 4 + length]))
            start += 4 + length
        del self._pending[:start]
        return bodies
