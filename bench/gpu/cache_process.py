"""`reprise cache` as the driver runs it: beside the reprise arm, on a socket and a data directory of its own.

REPRISE_NODE   the node program; "node" unless set
REPRISE_DIST   the built sources (dist/); this repository's own unless set
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

_start_seconds = 60.0
_end_seconds = 30.0
_repository = Path(__file__).resolve().parents[2]


class CacheProcess:
    """Started by the constructor, which returns when the cache listens. Raises RuntimeError when it does not."""

    def __init__(self, *, data_dir: Path, socket: str, host_gib: int, disk_gib: int, log: Path) -> None:
        node = os.environ.get("REPRISE_NODE", "node")
        dist = Path(os.environ.get("REPRISE_DIST", _repository / "dist"))
        command = [node, str(dist / "cli" / "main.js"), "cache", "--socket", socket, "--data-dir", str(data_dir)]
        command += ["--memory", f"{host_gib}GiB", "--disk", f"{disk_gib}GiB" if disk_gib else "0"]
        self.command = command
        self._socket = Path(socket)
        self._socket.unlink(missing_ok=True)
        # Every REPRISE_ variable is a setting to the command: it gets none but what stands on its command line.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REPRISE_")}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )
        deadline = time.monotonic() + _start_seconds
        while not self._socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.end(hard=True)
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{' '.join(command)} does not listen on {socket}:\n{tail}")
            time.sleep(0.02)

    def end(self, *, hard: bool = False) -> float:
        """Ends it, and says how many seconds that took; `hard` as a crash would."""
        started = time.monotonic()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
            try:
                self._process.wait(_end_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._socket.unlink(missing_ok=True)
        return time.monotonic() - started
