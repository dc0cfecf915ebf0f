"""Two caches over one store, whose answers to the second a test holds back: test/support/hosts-of-a-store.ts."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Host:
    socket_path: str


class HostsOfAStore:
    def __init__(self, folder: Path) -> None:
        self.first = Host(str(folder / "first.sock"))
        self.second = Host(str(folder / "second.sock"))
        program = REPOSITORY / ".build" / "test" / "support" / "hosts-of-a-store.js"
        self.process = subprocess.Popen(
            ["node", str(program), self.first.socket_path, self.second.socket_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def hold(self) -> None:
        """From now on the store does not tell the second what it has."""
        self._say("hold")

    def open(self) -> None:
        """It tells it, also what it was asked before."""
        self._say("open")

    @property
    def asked(self) -> int:
        """How often the second has asked the store."""
        return int(self._say("asked"))

    def flush(self) -> None:
        """What the first has is in the store."""
        self._say("flush")

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def _say(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()
