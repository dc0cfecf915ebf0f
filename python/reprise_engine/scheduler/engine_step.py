"""What is read of an engine's step while it is being planned: vLLM's SchedulerOutput has it under these names.

Another engine's connector makes an object with these fields. A request's blocks come as one list for each group of KV
caches, as the engine counts them; the first group's are read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol


class NewRequest(Protocol):
    """A request that is computed for the first time, or from its beginning again."""

    @property
    def req_id(self) -> str: ...
    @property
    def block_ids(self) -> Sequence[Sequence[int]]: ...
    @property
    def num_computed_tokens(self) -> int: ...


class KnownRequests(Protocol):
    """Requests that were computed before, as columns."""

    @property
    def req_ids(self) -> Sequence[str]: ...
    @property
    def resumed_req_ids(self) -> Collection[str]:
        """Those of them that were preempted: their new blocks are all that they have."""

    @property
    def new_block_ids(self) -> Sequence[Sequence[Sequence[int]] | None]: ...
    @property
    def num_computed_tokens(self) -> Sequence[int]: ...


class EngineStep(Protocol):
    """`preempted_req_ids`, the requests that lose their blocks in this step, may be missing or None."""

    @property
    def scheduled_new_reqs(self) -> Sequence[NewRequest]: ...
    @property
    def scheduled_cached_reqs(self) -> KnownRequests: ...
    @property
    def num_scheduled_tokens(self) -> Mapping[str, int]:
        """Tokens that the step computes, by request."""
