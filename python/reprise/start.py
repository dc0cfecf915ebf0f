"""Starts the cache when nobody has: a process of its own, which ends by itself when no engine uses it any more.

It is no child that has to be minded: it leads a session of its own, survives its starter, and goes after
`stop_when_unused` seconds without a guest. Who finds a cache on the socket uses that one; of several that start one at
the same time, one wins and all use it.
"""

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from reprise.client import default_data_dir, default_socket
from reprise.command import command_environment, command_line
from reprise.errors import RepriseError
from reprise.private_files import check_peer, make_directories, open_or_create_private

#: How `reprise cache` says that somebody else has the data directory.
_IN_USE_EXIT_CODE: Final = 3
_ASK_EVERY_SECONDS: Final = 0.02
_TRY_AGAIN_SECONDS: Final = 0.2
_LONGEST_LOG_BYTES: Final = 1 << 20

#: Kept so that those that have ended are reaped.
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class StartedCache:
    """A cache that answers on `socket_path`."""

    socket_path: Path
    #: Of the one that this call started; None when it was there.
    process_id: int | None


def start_cache(
    *,
    socket_path: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    memory: str | None = None,
    disk: str | None = None,
    stop_when_unused: int = 60,
    timeout: float = 20.0,
) -> StartedCache:
    """Makes sure that a cache listens on `socket_path`, and returns when it does.

    socket_path: cache.sock in `data_dir`, or the default socket, when not given.
    data_dir: where the disk tier lies; ~/.reprise when not given. It has one owner at a time.
    memory, disk: sizes such as "8GiB", for the cache that is started; its own defaults when not given.
    stop_when_unused: seconds without a guest after which it ends; 0 never.
    timeout: seconds until it must answer.

    What the cache says is in cache.log of the data directory. Raises RepriseError DATA_DIRECTORY_IN_USE when the
    directory's owner listens elsewhere, CACHE_UNAVAILABLE when the cache does not start (with what it said) or there
    is no `reprise` command, BAD_CONFIG for a directory that cannot be written.
    """
    if data_dir is not None:
        data_dir = Path(data_dir).expanduser()
    if socket_path is not None:
        place = Path(socket_path).expanduser()
    elif data_dir is not None:
        place = data_dir / "cache.sock"
    else:
        place = default_socket()
    if _answers(place):
        return StartedCache(place, None)
    flags = {
        "socket": place,
        "data-dir": data_dir,
        "memory": memory,
        "disk": disk,
        "stop-when-unused": stop_when_unused,
    }
    given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    with _open_log(data_dir if data_dir is not None else default_data_dir()) as log:
        before = log.seek(0, os.SEEK_END)
        command = [*command_line(), "cache", *given]
        process = _spawn(command, log)
        is_owned = False
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if _answers(place):
                return StartedCache(place, process.pid if process.poll() is None else None)
            if process.poll() == _IN_USE_EXIT_CODE:
                is_owned = True
                # Its owner is starting, and will answer; or ending, and will leave the directory to us.
                time.sleep(_TRY_AGAIN_SECONDS)
                if not _answers(place):
                    process = _spawn(command, log)
            elif process.poll() is not None:
                break
            time.sleep(_ASK_EVERY_SECONDS)
        _end(process)
        log.seek(before)
        words = log.read().decode(errors="replace").strip().splitlines()
    if is_owned:
        raise RepriseError("DATA_DIRECTORY_IN_USE", f"{words[-1]}; its cache does not answer on {place}")
    told = "\n".join(words) or "nothing"
    raise RepriseError("CACHE_UNAVAILABLE", f"no cache answers on {place} after {timeout:g} s. It said: {told}")


def _open_log(directory: Path) -> IO[bytes]:
    """What started caches say goes to cache.log in the data directory, begun anew when it has grown large."""
    path = directory / "cache.log"
    try:
        make_directories(directory)
        # Earlier releases let others read it.
        log = os.fdopen(open_or_create_private(path, os.O_RDWR | os.O_APPEND, tighten=True), "a+b")
    except OSError as error:
        raise RepriseError("BAD_CONFIG", f"cannot write to the data directory {directory}: {error}") from error
    if os.fstat(log.fileno()).st_size > _LONGEST_LOG_BYTES:
        log.truncate(0)
    return log


def _spawn(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    _started[:] = [process for process in _started if process.poll() is None]
    if shutil.which(command[0]) is None:
        raise RepriseError("CACHE_UNAVAILABLE", f"cannot run {command[0]}: there is no such program")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        env=command_environment(),
        start_new_session=True,
    )
    _started.append(process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a cache of ours that did not come up in time."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(place: Path) -> bool:
    """Does a living cache of ours listen there?"""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(place))
            check_peer(probe, place)
        except OSError:
            return False
        return True
