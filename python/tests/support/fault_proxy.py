"""A socket between a guest and a cache that reads along, and makes a fault at a chosen message.

    guest ◄──► FaultProxy ◄──► cache            "the second `load`": kill the cache, or pass the message on late

So a cache dies exactly when a load is asked for, between `found` and the first `parts`, or when a commit is on its
way, each time the test runs.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass

import msgspec

from support.cache_process import Cache
from support.relay import Relay


@dataclass(frozen=True)
class Moment:
    """The `nth` message of a kind after `arm`.

    `kind`: a message's type; what belongs to a load that may read from disk is "slow load", "slow found" and so on.
    """

    kind: str
    nth: int = 1
    #: Whether the message still arrives before the cache is killed.
    arrives: bool = False
    #: Instead of killing the cache, the message (and what follows it that way) arrives so much later.
    late_seconds: float = 0.0

    def __str__(self) -> str:
        how = (
            f"comes {self.late_seconds} s late" if self.late_seconds else "then dies" if self.arrives else "dies first"
        )
        return f"{self.kind} {self.nth}: {how}"


class FaultProxy(Relay):
    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._moment: Moment | None = None
        self._seen = 0
        self._struck = threading.Event()
        self._lock = threading.Lock()
        super().__init__(cache.folder / "fault-proxy.sock", cache.socket)

    def arm(self, moment: Moment) -> None:
        with self._lock:
            self._moment, self._seen = moment, 0
            self._struck.clear()
        if moment == BEFORE:
            self._cache.kill()
            self._struck.set()

    def struck(self) -> bool:
        """Whether the moment has come, and the cache is dead (or the message was passed on)."""
        return self._struck.wait(5)

    def _connected(self, guest: socket.socket, cache: socket.socket) -> None:
        slow_loads: set[int] = set()
        for source, target in ((guest, cache), (cache, guest)):
            threading.Thread(target=self._pass_on, args=(source, target, slow_loads), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, slow_loads: set[int]) -> None:
        with contextlib.suppress(OSError):
            while frame := _frame(source):
                message = msgspec.msgpack.decode(memoryview(frame)[4:])
                kind = message["type"]
                if kind == "load" and not message["onlyReady"]:
                    slow_loads.add(message["id"])
                if kind in ("load", "found", "parts", "loaded") and message["id"] in slow_loads:
                    kind = f"slow {kind}"
                moment = self._strikes(kind)
                if moment is None:
                    target.sendall(frame)
                    continue
                if moment.late_seconds:
                    time.sleep(moment.late_seconds)
                if moment.late_seconds or moment.arrives:
                    target.sendall(frame)
                if not moment.late_seconds:
                    self._cache.kill()
                self._struck.set()
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _strikes(self, kind: str) -> Moment | None:
        with self._lock:
            moment = self._moment
            if moment is None or moment.kind != kind:
                return None
            self._seen += 1
            if self._seen < moment.nth:
                return None
            self._moment = None
            return moment


def _frame(source: socket.socket) -> bytes:
    """One message with its length; empty when the peer has gone."""
    head = _exactly(source, 4)
    body = _exactly(source, struct.unpack("<I", head)[0]) if head else b""
    return head + body if body else b""


def _exactly(source: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = source.recv(count - len(data))
        if not piece:
            return b""
        data += piece
    return bytes(data)


BEFORE = Moment("anything")
#: A cache that dies: before it is asked, while it answers, while its bytes are read, while bytes are brought to it.
deaths = [
    BEFORE,
    Moment("lookup"),
    Moment("load"),
    Moment("load", arrives=True),
    Moment("found"),
    Moment("found", arrives=True),
    Moment("parts", arrives=True),
    Moment("loaded"),
    Moment("slow load"),
    Moment("slow found", arrives=True),
    Moment("slow parts", arrives=True),
    Moment("release"),
    Moment("reserve"),
    Moment("reserve", arrives=True),
    Moment("reserved"),
    Moment("reserved", arrives=True),
    Moment("commit"),
    Moment("commit", arrives=True),
    Moment("committed"),
]
