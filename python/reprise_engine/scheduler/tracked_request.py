"""What the scheduler side remembers of one of the engine's requests."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from reprise_engine.plan import JobId, LoadJob

if TYPE_CHECKING:
    from reprise.pending import PendingLookup
    from reprise_engine.scheduler.rank_links import RankedLoad, RankedReserve


class EngineRequest(Protocol):
    """What is read of an engine's request: vLLM's `Request` has it under these names."""

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
    """A hit that was promised to the engine's scheduler and is not loaded yet. Its leases are held."""

    load: RankedLoad
    #: Chunks of the load that are used.
    rows: int
    #: The tokens `begin` to `end` of the text are promised.
    begin: int
    end: int
    #: What the workers will do for it, without its blocks; None: some of it comes from below memory, job by job.
    job: LoadJob | None
    #: Its leases were given back: if the engine still counts on it, its blocks are to be computed.
    void: bool = False

    @property
    def between_steps(self) -> bool:
        return self.job is None or not self.job.in_step


@dataclass(slots=True)
class AsyncLoad:
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
    #: Somebody is storing its text elsewhere just now: that is asked for once, and waited for.
    awaited: Literal["no", "yes", "asked"] = "no"
    #: Another connector brings its prompt's KV, which is what it says if it has come by then (`time.time()`). None: no,
    #: or it has.
    promised_until: float | None = None
    #: A question of how much is stored that waits for its answer (questions.py).
    question: PendingLookup | None = None
    #: Others were asked for what this host lacks: they are not again.
    asked_elsewhere: bool = False
    claim: Claim | None = None
    async_load: AsyncLoad | None = None
    #: A load failed: what is left is computed.
    gave_up: bool = False
    #: The engine's blocks, kept from the first allocation until the prompt is computed, and again at the end.
    blocks: list[int] = field(default_factory=list)
    #: Tokens from the start of the text that are stored or were asked to be.
    asked_to_save: int = 0
    #: KV from this position on is approximate, or was computed on blocks that may have held something else: it is not
    #: stored. None: nothing is.
    approximate_from: int | None = None
    savings: list[Saving] = field(default_factory=list)
    save_jobs: set[JobId] = field(default_factory=set)
    finished: bool = False
    #: Of an ended request: blocks that we keep, and the first token of what may be saved out of them.
    kept: list[int] = field(default_factory=list)
    kept_from: int = 0
    _prompt: array[int] | None = None

    @property
    def request_id(self) -> str:
        return self.request.request_id

    def taint(self, from_token: int) -> None:
        """Says that the KV from `from_token` on is not what computing the text would give."""
        before = self.approximate_from
        self.approximate_from = from_token if before is None else min(before, from_token)

    def has_text(self) -> bool:
        """Whether the prompt is one of token ids as they travel: clients send them as well, and engines' checks of them
        have differed.
        """
        prompt = self.request.prompt_token_ids
        try:
            self._prompt = None if prompt is None else array("I", prompt)
        except (OverflowError, TypeError):
            return False
        return True

    def tokens(self, count: int) -> memoryview:
        """The first `count` tokens as u32. Those of the prompt were converted once, by `has_text`."""
        if self._prompt is None:
            return memoryview(array("I", self.request.all_token_ids[:count]))
        if count <= len(self._prompt):
            return memoryview(self._prompt)[:count]
        text = self._prompt[:]
        text.extend(self.request.all_token_ids[len(text) : count])
        return memoryview(text)
