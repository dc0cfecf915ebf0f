"""The identity of a model's weights: SHA-256 over its files, computed once and remembered.

What was computed is kept in a small file under the user's cache directory, by what a changed file cannot keep: device,
inode, size and the times of its last writing and last change. An image of a file system may repeat even those, with
other weights. So each digest has a sample of the content beside it, which is read at every start: both ends of a file
and pages spread over it.

vLLM opens the files itself, by their names, before it makes a connector. Whoever digests them afterwards asks
`changed_since` whether they may be others than those it has loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reprise.private_files import make_directories, open_private, replace_private

_suffixes = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_piece_bytes = 8 * 1024 * 1024
_threads = 4

#: What is read of all files together at a start: so many pages, a few of each file at least, and of each both ends.
_sample_pages = 256
_fewest_pages = 4
_page_bytes = 4096
_end_bytes = 16 * 1024

#: Digests remembered; the oldest go first.
_most_remembered = 1000
_largest_memory_bytes = 4 * 1024 * 1024

#: Kernel clocks tick every 10 ms at the slowest; file systems that keep whole seconds every second or two.
_tick_ns = 20_000_000
_coarse_tick_ns = 2_000_000_000
_second_ns = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Known:
    digest: str
    sample: str


def weights_digest(folder: Path, *, memory: Path | None = None) -> str:
    """SHA-256, hexadecimal, over names and contents of the weight files in `folder` (or of `folder`, if it is a file).

    `memory`: where digests are remembered; the user's cache directory unless given. Raises FileNotFoundError when there
    are no weights, and OSError when one cannot be read or changes meanwhile.
    """
    files = weight_files(folder)
    if not files:
        raise FileNotFoundError(f"there are no weights ({', '.join(_suffixes)}) in {folder}")
    path = memory if memory is not None else _default_memory()
    remembered = _read(path)
    pages = max(_fewest_pages, _sample_pages // len(files))
    with ThreadPoolExecutor(_threads) as pool:
        found = list(pool.map(lambda file: _digest(file, remembered, pages), files))
    fresh = dict(found)
    if any(remembered.get(identity) != known for identity, known in fresh.items()):
        old = {identity: known for identity, known in remembered.items() if identity not in fresh}
        _write(path, {**old, **fresh})
    total = hashlib.sha256(b"reprise-weights-1\n")
    for file, (_, known) in zip(files, found, strict=True):
        total.update(f"{file.name}\n{known.digest}\n".encode())
    return total.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The files whose contents are digested. Raises OSError."""
    if folder.is_file():
        return [folder]
    files = sorted(file for file in folder.iterdir() if file.suffix in _suffixes and file.is_file())
    safe = [file for file in files if file.suffix == ".safetensors"]
    return safe or files  # vLLM reads the safetensors when there are both


def file_identity(file: Path) -> str:
    """Another one whenever the file was written, or another took its place. Raises OSError."""
    return _identity(file.stat())


def changed_since(folder: Path, moment: float) -> Path | None:
    """A file that may be another one than at `moment` (seconds since the epoch): written, moved there or linked anew.

    Raises OSError.
    """
    files = weight_files(folder)
    links = [path for path in (folder, *folder.absolute().parents) if path.is_symlink()]
    for path in (folder, *files, *links):
        times = (path.stat().st_ctime, path.lstat().st_ctime)
        if max(times) > moment:
            return path
    return None


def process_started() -> float:
    """When this process began, in seconds since the epoch; infinitely late where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return float("inf")
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def _digest(file: Path, remembered: dict[str, _Known], pages: int) -> tuple[str, _Known]:
    _outlast_tick(file.stat())
    with file.open("rb", buffering=0) as source:
        status = os.fstat(source.fileno())
        identity = _identity(status)
        sample = _sample(source.fileno(), status.st_size, pages)
        known = remembered.get(identity)
        if known is None or known.sample != sample:
            digest = hashlib.sha256()
            while piece := source.read(_piece_bytes):
                digest.update(piece)
            known = _Known(digest.hexdigest(), sample)
        if _identity(os.fstat(source.fileno())) != identity or file_identity(file) != identity:
            raise OSError(f"{file} changed while it was read")
    return identity, known


def _sample(file: int, size: int, pages: int) -> str:
    digest = hashlib.sha256()

    def take(position: int, size: int) -> None:
        piece = os.pread(file, size, position)
        digest.update(f"{position}:{len(piece)}\n".encode())
        digest.update(piece)

    take(0, _end_bytes)
    for page in range(1, pages + 1):
        take(size * page // (pages + 1) // _page_bytes * _page_bytes, _page_bytes)
    take(max(0, size - _end_bytes), _end_bytes)
    return f"{pages}:{digest.hexdigest()}"


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _outlast_tick(status: os.stat_result) -> None:
    """Wait until the tick of the last change is over: a further one in it would leave no trace."""
    tick = _coarse_tick_ns if status.st_ctime_ns % _second_ns == 0 else _tick_ns
    rest = min(tick, tick - (time.time_ns() - status.st_ctime_ns))
    if rest > 0:
        time.sleep(rest / _second_ns)


def _default_memory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "reprise" / "weights.json"


def _read(path: Path) -> dict[str, _Known]:
    """Whatever is wrong with the file, the weights are read again."""
    try:
        known = json.loads(_read_own(path))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {
        identity: _Known(entry["digest"], entry["sample"])
        for identity, entry in known.items()
        if isinstance(entry, dict) and isinstance(entry.get("sample"), str) and _is_digest(entry.get("digest"))
    }


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _read_own(path: Path) -> bytes:
    """A file that somebody else may have written is worth nothing, and one that is no file must not be waited for."""
    with os.fdopen(open_private(path, os.O_RDONLY, tighten=True), "rb") as file:
        if os.fstat(file.fileno()).st_size > _largest_memory_bytes:
            raise OSError(f"{path} is larger than any that we write")
        return file.read()


def _write(path: Path, digests: dict[str, _Known]) -> None:
    newest = list(digests.items())[-_most_remembered:]
    entries = {identity: {"digest": known.digest, "sample": known.sample} for identity, known in newest}
    with suppress(OSError):  # a read-only home: they are computed again next time
        make_directories(path.parent)
        replace_private(path, json.dumps(entries).encode())
