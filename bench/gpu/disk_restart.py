"""Known prompts after everything was ended and started again, with the page cache dropped: what the disk gives back.

The arm `none` is restarted as well: its figure is what reading the prompt again costs. LMCache's local disk keeps its
index in memory, so a restart finds nothing there; `lmcache-fs` is LMCache with a store whose files are found again.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arms import Arms
from engine_settings import EngineSettings
from part import Part
from prompts import tokens
from report import Report, ratios, summary

_drop = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True)
class DiskRestart(Part):
    """Settings of this part."""

    seconds: int = 240
    arms: tuple[str, ...] = ("none", "lmcache", "lmcache-fs", "reprise")
    tokens: int = 16_000
    prompts: int = 4
    disk_gib: int = 40
    #: Longest wait for what was stored to be on disk.
    flush_seconds: float = 40.0
    #: End the engines and the cache as a crash would, not as an operator would.
    crash: bool = False

    def engine(self, base: EngineSettings) -> EngineSettings:
        context = self.tokens + 400
        return replace(
            super().engine(base),
            context_tokens=context,
            kv_tokens=context + 1024,
            disk_gib=self.disk_gib,
        )

    def measure(self, arms: Arms, report: Report) -> None:
        texts = [tokens(f"disk {index}", self.tokens) for index in range(self.prompts)]
        cold = self._ask(arms, texts)
        self._write(report, "before", cold)
        names = [name for name in self.running(arms) if name != "none"]
        report.data["stored"] = self._wait_until_stored(arms, names)
        report.say(f"stored: {report.data['stored']}")
        report.save()
        report.data["ended_in"] = arms.restart(
            self.running(arms), hard=self.crash, between=lambda: self._forget_files(arms, report)
        )
        report.data["restarted"] = arms.about()
        report.save()
        for name in self.running(arms):  # the first request of a process compiles and allocates
            for index in range(2):
                arms.call(name, "generate", prompt=tokens(f"disk warm-up {index}", self.tokens))
        self._forget_files(arms, report)
        after = self._ask(arms, texts)
        self._write(report, "after", after)
        report.data["same_first_token"] = {
            name: [s["first"] for s in given] == [s["first"] for s in cold.get(name, [])]
            for name, given in after.items()
        }
        report.data["disk_read_bytes_per_second"] = self._read_rate(arms)
        report.say(
            ", ".join(
                f"{name} {report.data['after'][name]['seconds']['median'] * 1e3:.0f} ms "
                f"({report.data['after'][name]['cached']} reused)"
                for name in after
            )
        )

    def _ask(self, arms: Arms, texts: list[list[int]]) -> dict[str, list[dict[str, Any]]]:
        samples: dict[str, list[dict[str, Any]]] = {}
        for text in texts:
            for name in arms.in_turn(self.running(arms)):
                answer = arms.call(name, "generate", prompt=text)
                if answer is not None:
                    samples.setdefault(name, []).append(answer)
        return samples

    def _write(self, report: Report, phase: str, samples: dict[str, list[dict[str, Any]]]) -> None:
        report.data[phase] = {
            name: {"seconds": summary(s["seconds"] for s in given), "cached": sorted({s["cached"] for s in given})}
            for name, given in samples.items()
        }
        medians = {name: given["seconds"]["median"] for name, given in report.data[phase].items()}
        report.data[f"ratios_{phase}"] = ratios(medians)
        report.save()

    def _wait_until_stored(self, arms: Arms, names: list[str]) -> dict[str, int]:
        """Waits until no arm's directory has grown for a second; bytes stored by each."""
        for name in names:
            arms.call(name, "forget")
        deadline = time.monotonic() + self.flush_seconds
        before: dict[str, int] = {}
        while True:
            stored = {name: arms.stored_bytes(name) for name in names}
            if stored == before or time.monotonic() > deadline:
                return stored
            before = stored
            time.sleep(1.0)

    def _forget_files(self, arms: Arms, report: Report) -> None:
        """Makes the next read of what was stored come from the disk."""
        os.sync()
        try:
            _drop.write_text("3\n")
            report.data["page_cache"] = "dropped"
        except OSError as error:
            report.data["page_cache"] = f"drop refused ({error}); the files' own pages were given up"
        for name in self.running(arms):
            for path in arms.disk_of(name).rglob("*"):
                if path.is_file():
                    descriptor = os.open(path, os.O_RDONLY)
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    os.close(descriptor)

    def _read_rate(self, arms: Arms) -> float | None:
        """What the disk gives one reader: the largest file stored, read once more after its pages were given up."""
        files = [path for name in self.running(arms) for path in arms.disk_of(name).rglob("*") if path.is_file()]
        if not files:
            return None
        largest = max(files, key=lambda path: path.stat().st_size)
        read = 0
        with largest.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            started = time.perf_counter()
            while read < 2**30 and (piece := file.read(8 * 2**20)):
                read += len(piece)
            return read / (time.perf_counter() - started)
