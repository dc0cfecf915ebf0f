"""The identity of a model's weights: SHA-256 over its files, computed once and remembered.

What was computed is kept in a small file under the user's cache directory, by (device, inode, size, time of the last
change): a file that was touched is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_suffixes = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_piece_bytes = 8 * 1024 * 1024
_threads = 4


def weights_digest(folder: Path, *, memory: Path | None = None) -> str:
    """SHA-256, hexadecimal, over names and contents of the weight files in `folder` (or of `folder`, if it is a file).

    `memory`: where digests are remembered; the user's cache directory unless given. Raises FileNotFoundError when there
    are no weights, and OSError when one cannot be read.
    """
    files = weight_files(folder)
    if not files:
        raise FileNotFoundError(f"there are no weights ({', '.join(_suffixes)}) in {folder}")
    path = memory if memory is not None else _default_memory()
    remembered = _read(path)
    with ThreadPoolExecutor(_threads) as pool:
        digests = dict(zip(files, pool.map(lambda file: _digest(file, remembered), files), strict=True))
    _write(path, {**remembered, **{file_identity(file): digest for file, digest in digests.items()}})
    total = hashlib.sha256(b"reprise-weights-1\n")
    for file in files:
        total.update(f"{file.name}\n{digests[file]}\n".encode())
    return total.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The files whose contents are digested. Raises OSError."""
    if folder.is_file():
        return [folder]
    files = sorted(file for file in folder.iterdir() if file.suffix in _suffixes and file.is_file())
    safe = [file for file in files if file.suffix == ".safetensors"]
    return safe or files  # vLLM reads the safetensors when there are both


def _digest(file: Path, remembered: dict[str, str]) -> str:
    known = remembered.get(file_identity(file))
    if known is not None:
        return known
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as source:
        while piece := source.read(_piece_bytes):
            digest.update(piece)
    return digest.hexdigest()


def file_identity(file: Path) -> str:
    """Another one whenever the file was written. Raises OSError."""
    stat = file.stat()
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"


def _default_memory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "reprise" / "weights.json"


def _read(path: Path) -> dict[str, str]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # nothing is remembered: everything is read
    return {str(key): str(value) for key, value in known.items()} if isinstance(known, dict) else {}


def _write(path: Path, digests: dict[str, str]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_text(json.dumps(digests))
        temporary.chmod(0o600)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a read-only home: they are computed again next time
