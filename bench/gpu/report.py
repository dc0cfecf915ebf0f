"""What a part leaves behind, and the arithmetic that all parts share.

One JSON file, written again after every stage, so that a part that is cut short leaves what it has.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: What the arm `reprise` is set against.
_others = ("none", "noop", "native", "lmcache", "lmcache-fs")


class Report:
    """The JSON of one part. `left()` says how many seconds the part still has."""

    def __init__(self, path: Path, part: str, seconds: float) -> None:
        self.data: dict[str, Any] = {
            "part": part,
            "ended": "cut short",
            "started": time.strftime("%FT%TZ", time.gmtime()),
        }
        self._path = path
        self._began = time.monotonic()
        self._limit = seconds
        self.save()

    def left(self) -> float:
        return self._limit - (time.monotonic() - self._began)

    def out_of_time(self, needed: float = 0.0) -> bool:
        """True when less than `needed` seconds are left; the report then says so."""
        if self.left() > needed:
            return False
        self.data["out_of_time"] = True
        return True

    def save(self) -> None:
        self.data["seconds"] = round(time.monotonic() - self._began, 1)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._path.with_name(self._path.name + ".part")
        whole.write_text(json.dumps(_rounded(self.data), indent=1) + "\n")
        whole.replace(self._path)

    def say(self, text: str) -> None:
        print(f"[{self.data['part']} {time.monotonic() - self._began:6.1f} s] {text}", flush=True)


def summary(values: Iterable[float]) -> dict[str, Any]:
    """Median, least, mean, 90th percentile and all of them. Empty: {"count": 0}."""
    given = list(values)
    if not given:
        return {"count": 0}
    return {
        "count": len(given),
        "median": statistics.median(given),
        "min": min(given),
        "mean": statistics.fmean(given),
        "p90": percentile(given, 90),
        "max": max(given),
        "all": given,
    }


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least `percent` percent of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def ratios(figures: dict[str, float | None], arm: str = "reprise") -> dict[str, float]:
    """`arm`'s figure over that of each other arm: below 1, it took less."""
    mine = figures.get(arm)
    if not mine:
        return {}
    return {f"{arm}/{other}": round(mine / theirs, 4) for other in _others if (theirs := figures.get(other))}


def machine() -> dict[str, Any]:
    """Under what all this was measured."""
    return {
        "gpu": _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version,clocks.sm", "--format=csv,noheader"),
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory": {
            line.split(":")[0]: line.split(":")[1].strip()
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith(("MemTotal", "MemAvailable", "Hugepagesize"))
        },
        "shm": _output("df", "-h", "--output=size,avail", "/dev/shm"),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "reprise": os.environ.get("REPRISE_COMMIT")
        or _output("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"),
    }


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    return done.stdout.strip()


def _rounded(value: Any) -> Any:
    """Seconds to the microsecond: more digits than that say nothing."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
