"""Errors of the Python side: the codes of the cache's own table (src/errors.ts, docs/errors.md), as one exception.

A cache that is slow, full or gone is no error but a miss. What is raised is a caller's mistake, or a cache that could
not be reached when someone asked for it by name.
"""

from typing import Literal, get_args

ErrorCode = Literal[
    "BAD_CONFIG",
    "MODEL_NOT_FOUND",
    "MODEL_INVALID",
    "LIBRARY_UNSUPPORTED",
    "NOT_ENOUGH_MEMORY",
    "ADDRESS_IN_USE",
    "DATA_DIRECTORY_IN_USE",
    "ENGINE_FAILED",
    "ENGINE_LOADING",
    "QUEUE_FULL",
    "PROMPT_TOO_LONG",
    "TEXT_NOT_TOKENIZABLE",
    "BAD_REQUEST",
    "CANCELLED",
    "TIER_UNAVAILABLE",
    "RECORD_CORRUPT",
    "PROTOCOL",
    "TARGET_UNAVAILABLE",
    "CACHE_UNAVAILABLE",
]

#: Every code there is.
ERROR_CODES: frozenset[str] = frozenset(get_args(ErrorCode))


class RepriseError(Exception):
    """A failure with a stable `code`. Read the code, never the text; the text says what was tried and what to do."""

    code: ErrorCode

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class ProtocolError(RepriseError):
    """A peer sent something that is not the wire protocol."""

    def __init__(self, message: str) -> None:
        super().__init__("PROTOCOL", message)
