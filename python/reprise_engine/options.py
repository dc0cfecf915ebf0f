"""The options of an engine that is a guest of a cache, checked once, all faults together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

SavePolicy = Literal["all", "prompt", "none"]

_units = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@dataclass(frozen=True, slots=True)
class Options:
    """Every field is a key of what the engine's user may write; the defaults suit one engine on one host."""

    #: The cache's unix socket; "" means DATA_DIR/cache.sock.
    socket: str = ""
    #: The cache's directory: where its socket lies, and what an autostarted cache uses.
    data_dir: str = "~/.reprise"
    #: Start `reprise cache` when nobody answers on the socket. It ends a minute after its last guest has left.
    autostart: bool = False
    #: What an autostarted cache may take.
    memory: str = "2GiB"
    disk: str = "20GiB"
    #: What is stored: prompts and answers, prompts alone, or nothing (a reader).
    save: SavePolicy = "all"
    #: How long a request may wait for the cache before it is scheduled; what has not been answered then is a miss.
    lookup_deadline_ms: int = 5
    #: How long a request may wait in the engine's queue while shared stores are asked for what this host lacks, and no
    #: longer than computing it would take unless another engine is storing it just now; 0: they are not waited for.
    shared_deadline_ms: int = 1000
    #: How long a load from disk may take before the rest of it is computed instead.
    load_deadline_ms: int = 10_000
    #: Hits of fewer tokens than this that lie on disk are computed instead.
    min_disk_tokens: int = 256
    #: Tokens per stored chunk, a multiple of the engine's block size; 0 chooses chunks of about 16 MiB.
    chunk_tokens: int = 0
    #: KV that may be under way to the cache at a time. What is beyond it waits, or is not saved.
    save_queue: str = "4GiB"
    #: Memory of each GPU that copies pass through: six places for loads, two for saves. A chunk must fit one.
    staging: str = "512MiB"

    @property
    def socket_path(self) -> str:
        return os.path.expanduser(self.socket or os.path.join(self.data_dir, "cache.sock"))

    @property
    def save_queue_bytes(self) -> int:
        return parse_bytes(self.save_queue)

    @property
    def staging_bytes(self) -> int:
        return parse_bytes(self.staging)


def parse_options(given: Mapping[str, Any], place: str) -> Options:
    """Raises ValueError that names the `place` and every key that is unknown or has a value it cannot have."""
    known = {field.name: field for field in fields(Options)}
    faults: list[str] = []
    for name, value in given.items():
        if name not in known:
            faults.append(f"{name} is no option; there are {', '.join(known)}")
        elif fault := _fault(name, value):
            faults.append(f"{name} {fault}, not {value!r}")
    if faults:
        raise ValueError(f"{place}: {'; '.join(faults)}")
    return Options(**given)


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "512MiB". Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?i?B)", text.strip())
    if match is None or match[2] not in _units:
        raise ValueError(f'a size is a number and one of {", ".join(_units)}, for example "4GiB", not {text!r}')
    return int(float(match[1]) * _units[match[2]])


def _fault(name: str, value: Any) -> str | None:
    if name in ("memory", "disk", "save_queue", "staging"):
        try:
            parse_bytes(value if isinstance(value, str) else "")
        except ValueError:
            return 'must be a size such as "4GiB"'
        return None
    if name == "save":
        return None if value in get_args(SavePolicy) else f"must be one of {', '.join(get_args(SavePolicy))}"
    wanted = type(getattr(Options(), name))
    if wanted is int:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return None if fits else "must be a whole number from 0"
    return None if isinstance(value, wanted) else f"must be {'true or false' if wanted is bool else 'a text'}"
