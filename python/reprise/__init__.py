"""Reprise: what a language model has read once, it need not read again.

This is the Python side of the cache: a client for research code (`connect`), and the link that engines are built on.
"""

from reprise.client import Cache, Hit, LoadedPayload, LoadedText, connect
from reprise.errors import ProtocolError, RepriseError
from reprise.link import GRACE_SECONDS, CacheLink
from reprise.pending import (
    Pending,
    PendingClear,
    PendingCommit,
    PendingLoad,
    PendingLookup,
    PendingReserve,
    PendingStats,
)
from reprise.pool import Pool
from reprise.protocol import LoadedChunk, ReservedChunk
from reprise.space import SpaceDescription, double_bits, space_id
from reprise.start import StartedCache, start_cache

__all__ = [
    "GRACE_SECONDS",
    "Cache",
    "CacheLink",
    "Hit",
    "LoadedChunk",
    "LoadedPayload",
    "LoadedText",
    "Pending",
    "PendingClear",
    "PendingCommit",
    "PendingLoad",
    "PendingLookup",
    "PendingReserve",
    "PendingStats",
    "Pool",
    "ProtocolError",
    "RepriseError",
    "ReservedChunk",
    "SpaceDescription",
    "StartedCache",
    "connect",
    "double_bits",
    "space_id",
    "start_cache",
]
