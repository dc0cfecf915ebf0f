r"""The arms of a comparison: one process each, all alive at the same time, spoken to one at a time.

    driver ──{"op":"generate",...}\n──► arm_process.py   one line each way per call; all else the engine prints goes to
           ◄──{"ok":true,...}\n──────                    the arm's log file

An arm that fails or does not answer in time is ended and left out from then on; what it last wrote is kept in `failed`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from cache_process import CacheProcess
from engine_settings import EngineSettings, arm_environment, engine_arguments

_here = Path(__file__).resolve().parent
_start_seconds = 300.0
_call_seconds = 120.0
_end_seconds = 15.0
_log_lines = 60
#: Memory counts as registered when no more of it was mapped for so long.
_still_seconds = 2.0
_longest_registration_seconds = 90.0


class ArmFailed(Exception):
    """An arm did not answer, or answered with a fault. The message is what it wrote."""


class Arm:
    """One engine in one process. `start` begins it, `ready` waits for it."""

    def __init__(self, name: str, settings: EngineSettings, folder: Path) -> None:
        self.name = name
        self.settings = settings
        self.disk = folder / "disk"
        self.log = folder / "arm.log"
        self.disk.mkdir(parents=True, exist_ok=True)
        self.about: dict[str, Any] = {}
        # Short: a unix socket's path has at most 107 bytes.
        owner = name.removesuffix("-again")
        self._socket = str(Path(tempfile.gettempdir()) / f"reprise-bench-{os.getpid()}-{owner}.sock")
        self._process: subprocess.Popen[bytes] | None = None
        self._cache: CacheProcess | None = None
        self._unread = b""

    def start(self) -> None:
        if self.name == "reprise":
            self._cache = CacheProcess(
                data_dir=self.disk,
                socket=self._socket,
                host_gib=self.settings.host_gib,
                disk_gib=self.settings.disk_gib,
                log=self.log.with_name("cache.log"),
            )
        given = {"arm": self.name, "settings": asdict(self.settings)}
        given["gpu"] = engine_arguments(self.name, self.settings, cuda=True, socket=self._socket)
        given["cpu"] = engine_arguments(self.name, self.settings, cuda=False, socket=self._socket)
        path = os.pathsep.join([str(_here), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._unread = b""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(_here / "arm_process.py"), json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **arm_environment(self.name, self.settings, self.disk), "PYTHONPATH": path},
                process_group=0,
            )

    def ready(self, seconds: float = _start_seconds) -> None:
        self.about = self._answer(time.monotonic() + seconds, "its start")

    def call(self, op: str, *, seconds: float = _call_seconds, **given: Any) -> dict[str, Any]:
        """Raises ArmFailed, and ends the arm, when it does not answer within `seconds` or answers with a fault."""
        process = self._process
        if process is None or process.stdin is None:
            raise ArmFailed(f"{self.name} does not run")
        deadline = time.monotonic() + seconds
        try:
            process.stdin.write(json.dumps({"op": op, **given}).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise ArmFailed(f"{self.name} is gone before {op}: {error}\n{self.log_tail()}") from error
        return self._answer(deadline, op)

    def wait_for_registration(self) -> float:
        """Waits until the engine has registered the cache's memory with the GPU, which it does behind its first request
        and which slows down whatever runs meanwhile; seconds that it took.
        """
        started = time.monotonic()
        if not self.name.startswith("reprise") or self._process is None:
            return 0.0
        self.call("generate", prompt=[11, 12, 13])
        before, since = -1, started
        while time.monotonic() - since < _still_seconds and time.monotonic() - started < _longest_registration_seconds:
            shared = _shared_bytes(self._process.pid)
            if shared != before:
                before, since = shared, time.monotonic()
            time.sleep(0.1)
        return time.monotonic() - started

    def stop(self, *, hard: bool = False, hard_cache: bool | None = None) -> float:
        """Ends the engine, then its cache; seconds of the cache's end. `hard`: as a crash would, the cache too unless
        `hard_cache` says otherwise.
        """
        process, self._process = self._process, None
        if process is not None:
            pools = _offload_pools(process.pid)
            if not hard and process.poll() is None and process.stdin is not None:
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    process.stdin.close()
                    process.wait(_end_seconds)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pool in pools:  # an engine that was killed leaves it, and with it the host's memory
                pool.unlink(missing_ok=True)
        cache, self._cache = self._cache, None
        return 0.0 if cache is None else cache.end(hard=hard if hard_cache is None else hard_cache)

    def log_tail(self, lines: int = _log_lines) -> str:
        texts = [f for f in (self.log, self.log.with_name("cache.log")) if f.exists()]
        return "\n".join(line[:400] for f in texts for line in f.read_text(errors="replace").splitlines()[-lines:])

    def _answer(self, deadline: float, what: str) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        parts = [self._unread]
        while b"\n" not in parts[-1]:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise ArmFailed(f"{self.name} did not answer to {what} in time\n{self.log_tail()}")
            read = os.read(descriptor, 1 << 20)
            if not read:
                raise ArmFailed(f"{self.name} ended during {what}\n{self.log_tail()}")
            parts.append(read)
        line, self._unread = b"".join(parts).split(b"\n", 1)
        answer = json.loads(line)
        if not answer.pop("ok"):
            raise ArmFailed(f"{self.name}, {what}:\n{answer['error']}\n{self.log_tail(15)}")
        return answer


def _shared_bytes(group: int) -> int:
    """Shared memory that the processes of a group have in their page tables."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError, ValueError):
            if os.getpgid(int(status.parent.name)) == group:
                total += sum(int(line.split()[1]) for line in status.read_text().splitlines() if "RssShmem" in line)
    return total * 1024


def _offload_pools(pid: int) -> set[Path]:
    """The host memory that vLLM's own offload has taken by name in this process."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return set()
    return {Path(found) for found in re.findall(r"(/dev/shm/vllm_offload_\S+)", maps)}


class Arms:
    """The arms that run. Leaving the `with` ends them all and removes what they stored."""

    def __init__(
        self, names: Iterable[str], settings: EngineSettings, *, start_seconds: float = _start_seconds
    ) -> None:
        self.settings = settings
        self.failed: dict[str, str] = {}
        #: Longest time that memory was registered for after a start.
        self.registration_seconds = 0.0
        self._folder = Path(tempfile.mkdtemp(prefix="reprise-bench-"))
        self._all = {name: Arm(name, settings, self._folder / name) for name in names}
        self._turn = 0
        started = time.monotonic()
        try:
            self._each(list(self._all.values()), start_seconds)
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.monotonic() - started

    @property
    def names(self) -> list[str]:
        return [name for name in self._all if name not in self.failed]

    def about(self) -> dict[str, Any]:
        return {name: self._all[name].about for name in self.names}

    def call(self, name: str, op: str, **given: Any) -> dict[str, Any] | None:
        """One arm's answer; None when it has failed, now or before."""
        if name not in self._all or name in self.failed:
            return None
        try:
            return self._all[name].call(op, **given)
        except ArmFailed as failure:
            self._drop(name, failure)
            return None

    def in_turn(self, names: Iterable[str] | None = None) -> list[str]:
        """The arms that run, beginning with another one each time, so that none is always the first."""
        running = [name for name in (self.names if names is None else names) if name in self.names]
        self._turn += 1
        first = self._turn % len(running) if running else 0
        return running[first:] + running[:first]

    def restart(self, names: Iterable[str], *, hard: bool, between: Any = None) -> dict[str, float]:
        """Ends arms and their caches, calls `between`, starts them over the same disk; seconds of each cache's end."""
        arms = [self._all[name] for name in names if name in self.names]
        ended = {arm.name: arm.stop(hard=hard) for arm in arms}
        if between is not None:
            between()
        self._each(arms, _start_seconds)
        return ended

    def stored_bytes(self, name: str) -> int:
        """What the arm's disk directory takes."""
        return sum(f.stat().st_blocks * 512 for f in self._all[name].disk.rglob("*") if f.is_file())

    def logs(self, lines: int = 15) -> dict[str, str]:
        return {name: arm.log_tail(lines) for name, arm in self._all.items()}

    def disk_of(self, name: str) -> Path:
        return self._all[name].disk

    def close(self) -> None:
        with ThreadPoolExecutor(len(self._all) or 1) as pool:
            # What is only in memory need not be written to a disk that is removed next.
            list(pool.map(lambda arm: arm.stop(hard_cache=self.settings.disk_gib > 0), self._all.values()))
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _each(self, arms: list[Arm], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for step in ("start", "ready", "registration"):
            for arm in arms:
                if arm.name in self.failed:
                    continue
                try:
                    if step == "start":
                        arm.start()
                    elif step == "ready":
                        arm.ready(max(1.0, deadline - time.monotonic()))
                    else:
                        self.registration_seconds = max(self.registration_seconds, arm.wait_for_registration())
                except (ArmFailed, RuntimeError, OSError) as failure:
                    self._drop(arm.name, failure)

    def _drop(self, name: str, failure: Exception) -> None:
        self.failed[name] = str(failure)
        print(f"arm {name} is left out: {str(failure)[:6000]}", file=sys.stderr, flush=True)
        self._all[name].stop(hard=True, hard_cache=self.settings.disk_gib > 0)
