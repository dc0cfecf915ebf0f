"""Reprise: what a language model has read once, it need not read again.

This is the Python side of the cache: a client for research code (`connect`), and the link that engines are built on.
"""

from reprise.errors import ProtocolError, RepriseError
from reprise.link import GRACE_SECONDS, CacheLink
from reprise.pending import Pending, PendingCommit, PendingLoad, PendingLookup, PendingReserve, PendingStats
from reprise.protocol import LoadedChunk, ReservedChunk
from reprise.space import SpaceDescription, double_bits, space_id

__all__ = [
    "GRACE_SECONDS",
    "CacheLink",
    "LoadedChunk",
    "Pending",
    "PendingCommit",
    "PendingLoad",
    "PendingLookup",
    "PendingReserve",
    "PendingStats",
    "ProtocolError",
    "RepriseError",
    "ReservedChunk",
    "SpaceDescription",
    "double_bits",
    "space_id",
]
