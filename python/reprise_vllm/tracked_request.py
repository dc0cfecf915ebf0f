"""What the scheduler side remembers of one of vLLM's requests."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from reprise_vllm.plan import JobId, LoadJob

if TYPE_CHECKING:
    from reprise.pending import PendingLookup
    from reprise_vllm.rank_links import RankedLoad, RankedReserve


class EngineRequest(Protocol):
    """The part of vLLM's `Request` that is read here."""

    request_id: str
    num_computed_tokens: int

    @property
    def num_tokens(self) -> int: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def prompt_token_ids(self) -> Sequence[int] | None: ...
    @property
    def all_token_ids(self) -> Sequence[int]: ...
    @property
    def block_hashes(self) -> Sequence[bytes]: ...


@dataclass(frozen=True, slots=True)
class Root:
    """Whose texts these are: see `Root` of the protocol."""

    salt: str
    adapter: str


@dataclass(slots=True)
class Claim:
    """A hit that was promised to vLLM's scheduler and is not loaded yet. Its leases are held."""

    load: RankedLoad
    #: Chunks of the load that are used.
    rows: int
    #: The tokens `begin` to `end` of the text are promised.
    begin: int
    end: int
    #: What the workers will do for it, without its blocks; None: some of it comes from below memory, job by job.
    job: LoadJob | None

    @property
    def between_steps(self) -> bool:
        return self.job is None or not self.job.in_step


@dataclass(slots=True)
class SlowLoad:
    """A load between steps."""

    load: RankedLoad
    begin: int
    end: int
    #: The blocks of tokens `begin` to `end`.
    block_ids: npt.NDArray[np.int32]
    #: Chunks handed to the workers so far, and the end of what they cover.
    rows: int
    covered: int
    #: time.monotonic() after which the rest is computed.
    deadline: float


@dataclass(slots=True)
class Saving:
    """A question to the cache which chunks of a text it wants."""

    reserve: RankedReserve
    block_hash: bytes | None


@dataclass(slots=True)
class TrackedRequest:
    request: EngineRequest
    root: Root
    may_read: bool
    may_save: bool
    #: A question of how much is stored, sent when the request arrived at an engine that was busy.
    early: PendingLookup | None = None
    claim: Claim | None = None
    slow_load: SlowLoad | None = None
    #: A load failed: what is left is computed.
    gave_up: bool = False
    #: The engine's blocks, kept from the first allocation until the prompt is computed, and again at the end.
    blocks: list[int] = field(default_factory=list)
    #: Tokens from the start of the text that are stored or were asked to be.
    asked_to_save: int = 0
    savings: list[Saving] = field(default_factory=list)
    save_jobs: set[JobId] = field(default_factory=set)
    finished: bool = False
    #: Of an ended request: blocks that we keep, and the first token of what may be saved out of them.
    pinned: list[int] = field(default_factory=list)
    pinned_from: int = 0
    _prompt: array[int] | None = None

    @property
    def request_id(self) -> str:
        return self.request.request_id

    def tokens(self, count: int) -> memoryview:
        """The first `count` tokens as u32. Those of the prompt are converted once."""
        prompt = self.request.prompt_token_ids
        if prompt is not None and count <= len(prompt):
            if self._prompt is None:
                self._prompt = array("I", prompt)
            return memoryview(self._prompt)[:count]
        if self._prompt is None:
            return memoryview(array("I", self.request.all_token_ids[:count]))
        text = self._prompt[:]
        text.extend(self.request.all_token_ids[len(text) : count])
        return memoryview(text)
