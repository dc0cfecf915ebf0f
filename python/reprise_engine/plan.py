"""What the scheduler side tells the workers each step, and what they answer.

The scheduler side (one per engine) talks to the cache and knows leases; the workers (one per rank) know layouts,
streams and the mapped pool, and nothing of sockets. Everything here is plain data: it is pickled when there are
several ranks, so a job's chunks are columns of arrays, not objects.

A job moves whole engine blocks between slots of the pool and blocks of the KV cache:

    slot of a chunk with n blocks     segment 0: block 0 … n-1 │ segment 1: block 0 … n-1 │ …      (layout.py: segments)
                                              └ skip ┘└ take ┘
    engine                            block_ids[…] in the same order as the taken blocks of all chunks

Life of a load inside a step:  plan.loads → copied before the forward pass → report.done → leases released.
Life of a load between steps:  plan.loads (several steps, as chunks arrive) → plan.finish_loads → the worker reports the
                               request received once all its jobs ended.
Life of a save:                plan.saves (a step after the tokens were computed) → report.done → committed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

JobId = int


@dataclass(frozen=True, slots=True)
class PoolRef:
    """The pool's file, as the cache announced it. A new epoch is a new file: what was mapped before is void."""

    epoch: int
    path: str
    #: Length of the file, which is sparse.
    bytes: int
    #: How much of it the cache may use, from its beginning on: what is worth registering ahead of need.
    capacity_bytes: int


@dataclass(slots=True)
class TransferJob:
    """Blocks to move, chunk by chunk."""

    job_id: JobId
    epoch: int
    #: [ranks, chunks] int64: where each rank's payload lies in the pool.
    slot_offsets: npt.NDArray[np.int64]
    #: [chunks] int32: blocks in the chunk's payload.
    chunk_blocks: npt.NDArray[np.int32]
    #: [chunks] int32: blocks of the payload, from its start, that are not moved.
    skip_blocks: npt.NDArray[np.int32]
    #: [chunks] int32: blocks that are moved.
    take_blocks: npt.NDArray[np.int32]
    #: [sum of take_blocks] int32: the engine's blocks, in order.
    block_ids: npt.NDArray[np.int32]
    #: [chunks] int64: position in its text at which the chunk's KV was computed, and at which it is wanted. They are
    #: equal for prefixes; a copier that cannot rotate keys refuses a job in which they differ.
    old_positions: npt.NDArray[np.int64]
    new_positions: npt.NDArray[np.int64]
    #: time.monotonic() after which the leases may have fallen: a job that has not been started by then is refused, and
    #: a load that ends after it has failed.
    valid_until: float


@dataclass(slots=True)
class LoadJob(TransferJob):
    """What one request loads."""

    request_id: str = ""
    #: True: the forward pass of this step reads these blocks. False: nothing reads them until the request is received.
    in_step: bool = True


@dataclass(slots=True)
class SaveJob(TransferJob):
    """What some requests of a step save: enqueued, ended and committed together."""


@dataclass(slots=True)
class StepPlan:
    """All that the workers do for one step."""

    #: Told until every rank has mapped it.
    pool: PoolRef | None = None
    loads: list[LoadJob] = field(default_factory=list)
    saves: list[SaveJob] = field(default_factory=list)
    #: Requests whose last load job (between steps) was given now or before, with the blocks that will not be loaded.
    #: The worker reports each received, once, when its jobs ended; failed jobs add their blocks to the invalid ones.
    finish_loads: dict[str, list[int]] = field(default_factory=dict)
    #: Blocks that the engine counts on in this step and that no load brings: to be computed.
    unloaded: list[int] = field(default_factory=list)
    #: Finished requests whose blocks are kept, with the save jobs to wait for (perhaps none).
    finish_saves: dict[str, list[JobId]] = field(default_factory=dict)
    #: Blocks with a save under way may be overwritten from this step on: the forward pass waits for the gathers.
    fence_saves: bool = False


#: What most steps hold. One object for all of them: nobody changes it.
NOTHING = StepPlan()


@dataclass(frozen=True, slots=True)
class WorkerLayout:
    """What one rank knows of its KV cache."""

    #: Bytes of one block, all layers.
    block_bytes: int
    signature: str
    #: What its copies can move as one payload.
    largest_payload_bytes: int


@dataclass(slots=True)
class WorkerReport:
    """Jobs that ended since the last report, counted over the ranks that say so."""

    done: dict[JobId, int] = field(default_factory=dict)
    #: Those of them of which some rank says that the bytes are not right: a load's blocks are invalid, a save is not
    #: committed. A failed job is in `done` as well, once a rank: nobody touches its slots any more.
    failed: set[JobId] = field(default_factory=set)
    #: Ranks that have mapped the pool of this epoch.
    ready: dict[int, int] = field(default_factory=dict)
    #: By rank: told once, by workers whose layouts the engine does not pass on at start.
    layouts: dict[int, WorkerLayout] = field(default_factory=dict)

    def merge(self, other: WorkerReport) -> WorkerReport:
        """Adds another rank's report to this one."""
        for mine, theirs in ((self.done, other.done), (self.ready, other.ready)):
            for key, count in theirs.items():
                mine[key] = mine.get(key, 0) + count
        self.failed |= other.failed
        self.layouts.update(other.layouts)
        return self

    @property
    def is_empty(self) -> bool:
        return not (self.done or self.failed or self.ready or self.layouts)
