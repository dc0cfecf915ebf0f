"""`reprise cache` as a process of its own, with what may happen to it."""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reprise import CacheLink, SpaceDescription
from support.relay import Relay

REPOSITORY = Path(__file__).parents[3]


class Cache:
    """The cache of one data directory. Started at once; `start` again after a `kill` or `stop`. `inside`: what its
    command begins with, of a host of its own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memory: str = "512MiB",
        disk: str = "2GiB",
        flags: Sequence[str] = (),
        inside: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.socket = str(folder / "cache.sock")
        self._command = [
            *inside,
            *("node", str(REPOSITORY / "dist" / "cli" / "main.js"), "cache"),
            *("--data-dir", str(folder), "--memory", memory, "--disk", disk),
            *flags,
        ]
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        while line := process.stdout.readline():
            if line.startswith("Reprise is ready at "):
                threading.Thread(target=process.stdout.read, daemon=True).start()
                assert process.stderr is not None
                threading.Thread(target=process.stderr.read, daemon=True).start()
                self.process = process
                return process
        raise AssertionError(f"the cache did not start: {process.communicate()[1]}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert code == 0, code

    def stats(self) -> dict[str, Any]:
        """The cache's figures, asked as a guest of a space of its own."""
        names = dict.fromkeys(("weights", "key_type", "value_type", "layout", "attention", "rope"), "")
        sizes = dict.fromkeys(("payload_format", "layers", "key_value_heads", "key_size", "value_size"), 1)
        space = SpaceDescription(engine="statistics", tensor_parallel=1, chunk_tokens=1, **names, **sizes)  # type: ignore[arg-type]
        link = CacheLink(socket_path=self.socket, space=space, rank=0, slot_bytes=[4096])
        assert link.connect(10), link.last_error
        pending = link.stats()
        assert pending is not None and link.wait(pending, 10)
        link.close()
        return dict(pending.stats)

    def damage_disk(self, seed: int = 1, flips: int = 40) -> None:
        """Flips bits all over the disk tier's files. The cache must not be running."""
        rng = random.Random(seed)
        files = [
            file for file in (self.folder / "disk").iterdir() if file.stat().st_size > 8192 and file.name != "lock"
        ]
        assert files
        for _ in range(flips):
            file = rng.choice(files)
            with file.open("r+b") as stream:
                place = rng.randrange(4096, file.stat().st_size)
                stream.seek(place)
                byte = stream.read(1)[0]
                stream.seek(place)
                stream.write(bytes([byte ^ (1 << rng.randrange(8))]))

    @contextlib.contextmanager
    def killed_and_restarted_every(self, seconds: float, seed: int = 1) -> Iterator[None]:
        """Meanwhile the cache dies again and again, at random moments, and comes back."""
        rng = random.Random(seed)
        over = threading.Event()

        def rage() -> None:
            while not over.wait(rng.uniform(0.5, 1.5) * seconds):
                self.kill()
                if over.wait(rng.uniform(0, 0.3) * seconds):
                    break
                self.start()

        thread = threading.Thread(target=rage)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            if self.process.poll() is not None:
                self.start()


class SlowProxy(Relay):
    """A socket that passes everything on to the cache, later."""

    def __init__(self, cache: Cache, seconds: float) -> None:
        self._seconds = seconds
        self._nonsense = False
        super().__init__(cache.folder / "slow.sock", cache.socket)

    def talk_nonsense(self) -> None:
        """From now on guests get random bytes, and so do those who connect again."""
        self._nonsense = True

    def _connected(self, guest: socket.socket, cache: socket.socket) -> None:
        threading.Thread(target=self._pass_on, args=(guest, cache), daemon=True).start()

    def _pass_on(self, guest: socket.socket, cache: socket.socket) -> None:
        with selectors.DefaultSelector() as ready, contextlib.suppress(OSError):
            ready.register(guest, selectors.EVENT_READ, cache)
            ready.register(cache, selectors.EVENT_READ, guest)
            while True:
                for key, _ in ready.select():
                    source: Any = key.fileobj
                    data = source.recv(1 << 20)
                    if not data:
                        key.data.close()
                        return
                    time.sleep(self._seconds)
                    key.data.sendall(os.urandom(512) if self._nonsense and key.data is guest else data)
