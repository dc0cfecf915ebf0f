"""A socket between guests and a cache; what passes on the way is the subclass's to decide."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from abc import ABC, abstractmethod
from pathlib import Path


class Relay(ABC):
    def __init__(self, path: Path, cache_socket: str) -> None:
        self.socket = str(path)
        self._cache_socket = cache_socket
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        self._listener.bind(self.socket)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        os.unlink(self.socket)
        for open_socket in self._open:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)

    @abstractmethod
    def _connected(self, guest: socket.socket, cache: socket.socket) -> None:
        """A guest has come: both ends are to be read, in threads of their own."""

    def _accept(self) -> None:
        while True:
            try:
                guest, _ = self._listener.accept()
            except OSError:
                return
            cache = socket.socket(socket.AF_UNIX)
            try:
                cache.connect(self._cache_socket)
            except OSError:
                guest.close()  # nobody is there
                continue
            self._open += [guest, cache]
            self._connected(guest, cache)
