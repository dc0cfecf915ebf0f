"""Reprise: what a language model has read once, it need not read again.

This is the Python side of the cache: a client for research code (`connect`), and the link that engines are built on.
"""

from reprise.client import Cache, Hit, LoadedPayload, LoadedText, connect
from reprise.errors import ProtocolError, RepriseError
from reprise.link import CacheLink
from reprise.link_life import GRACE_SECONDS
from reprise.pending import (
    Pending,
    PendingClear,
    PendingCommit,
    PendingLoad,
    PendingLookup,
    PendingPrefetch,
    PendingReserve,
    PendingStats,
)
from reprise.pool import Pool
from reprise.rows import LoadedPart, ReservedPart
from reprise.space import SpaceDescription, double_bits, space_id
from reprise.start import StartedCache, start_cache

__all__ = [
    "GRACE_SECONDS",
    "Cache",
    "CacheLink",
    "Hit",
    "LoadedPart",
    "LoadedPayload",
    "LoadedText",
    "Pending",
    "PendingClear",
    "PendingCommit",
    "PendingLoad",
    "PendingLookup",
    "PendingPrefetch",
    "PendingReserve",
    "PendingStats",
    "Pool",
    "ProtocolError",
    "RepriseError",
    "ReservedPart",
    "SpaceDescription",
    "StartedCache",
    "connect",
    "double_bits",
    "space_id",
    "start_cache",
]

#: Of the installed package; "unknown" where it is imported from somewhere else.
__version__: str


def __getattr__(name: str) -> str:
    """`__version__`, looked up when somebody asks."""
    if name != "__version__":
        raise AttributeError(f"module 'reprise' has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("reprise-kv")
    except metadata.PackageNotFoundError:
        return "unknown"
