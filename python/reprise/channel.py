"""One connection's socket: frames out, frames in, and never a wait.

What the socket does not take at once stays in a buffer with a limit. Nothing here blocks, and nothing raises for what a
socket or a peer does: the first failure is kept in `failure`, and the channel is over.
"""

import socket
from collections import deque

from reprise.errors import ProtocolError
from reprise.frames import MAX_FRAME_BYTES, FrameReader, encode_frame, parse_answer
from reprise.private_files import check_peer
from reprise.protocol import Answer, Request

_receive_bytes = 256 * 1024
#: Read in one go at most, so that a flood of answers does not hold up the caller's loop.
_receive_at_once_bytes = 8 * 1024 * 1024
_socket_buffer_bytes = 1024 * 1024


class Channel:
    """A connected, non-blocking unix socket.

    Raises OSError from its constructor when nobody listens, or another user does.
    """

    def __init__(self, socket_path: str, *, outgoing_limit_bytes: int) -> None:
        self.failure: Exception | None = None
        #: The last `receive` took all that was there: the connection stood then, unless `failure` says otherwise.
        self.drained = False
        self._limit_bytes = outgoing_limit_bytes
        self._reader = FrameReader()
        self._outgoing: deque[memoryview] = deque()
        self._outgoing_bytes = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            # A prompt of 32,000 tokens goes out in one call; the kernel caps this at what the host allows.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _socket_buffer_bytes)
            self._socket.connect(socket_path)
            check_peer(self._socket, socket_path)
        except OSError:
            self._socket.close()
            raise

    @property
    def outgoing_bytes(self) -> int:
        """What the cache has not taken yet."""
        return self._outgoing_bytes

    def fileno(self) -> int:
        """The socket, for select and poll."""
        return self._socket.fileno()

    def end_handshake(self) -> None:
        """Lets long frames in: the peer has said who it is."""
        self._reader.limit_bytes = MAX_FRAME_BYTES

    def has_room(self, bytes_: int) -> bool:
        """Whether a message of that size fits into the buffer."""
        return self.failure is None and self._outgoing_bytes + bytes_ <= self._limit_bytes

    def send(self, message: Request) -> None:
        """Sends, or keeps for `flush`, whatever the buffer's limit: ask `has_room` before long messages."""
        if self.failure is not None:
            return
        frame = memoryview(encode_frame(message))
        self._outgoing.append(frame)
        self._outgoing_bytes += len(frame)
        self.flush()

    def flush(self) -> None:
        """Sends what the socket takes now."""
        try:
            while self._outgoing and self.failure is None:
                first = self._outgoing[0]
                sent = self._socket.send(first)
                self._outgoing_bytes -= sent
                if sent < len(first):
                    self._outgoing[0] = first[sent:]
                else:
                    self._outgoing.popleft()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.failure = error

    def receive(self) -> list[Answer]:
        """What has arrived, whole messages only. After it returned, `failure` tells whether the connection stands."""
        answers: list[Answer] = []
        received = 0
        self.drained = False
        try:
            while self.failure is None and received < _receive_at_once_bytes:
                piece = self._socket.recv(_receive_bytes)
                if not piece:
                    self.failure = ConnectionResetError("the cache closed the connection")
                    break
                received += len(piece)
                answers.extend(parse_answer(body) for body in self._reader.push(piece))
        except (BlockingIOError, InterruptedError):
            self.drained = True
        except (OSError, ProtocolError) as error:
            self.failure = error
        return answers

    def close(self) -> None:
        """Closes the socket; what was not sent is dropped."""
        self._socket.close()
        self._outgoing.clear()
        self._outgoing_bytes = 0
