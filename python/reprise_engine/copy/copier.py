"""What a copier does: it moves the blocks of a job between the mapped pool and the engine's KV cache.

Two exist: copy_host.py for KV caches in host memory, copy_cuda.py for CUDA and ROCm. Calls only enqueue; a handle says
when the bytes have arrived. What a job names is checked here, so that none can touch memory that is not its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from reprise_engine.copy.layers import LayerWaits
    from reprise_engine.copy.layout import Layout
    from reprise_engine.plan import LoadJob, SaveJob, TransferJob

#: Slots never cross a border of these, and the pool is registered with the device in these.
EXTENT_BYTES = 64 * 1024 * 1024


class PoolView(Protocol):
    """Host memory that slots lie in: the mapped pool, or what a probe takes for it."""

    address: int
    bytes: int
    view: npt.NDArray[np.uint8]

    def is_registered(self, offsets: npt.NDArray[np.int64]) -> bool:
        """Whether the device knows the memory at all these offsets, so that copies of it are fast and asynchronous."""


class Handle(Protocol):
    """A copy under way."""

    @property
    def done(self) -> bool:
        """Whether it ended; never blocks. Raises when the device says that it failed."""

    @property
    def ended_at(self) -> float:
        """time.monotonic() when its end was noticed, soon after the end itself; only once `done`."""

    @property
    def layers(self) -> LayerWaits | None:
        """For an in-step load that the engine is to wait for layer by layer; None: it waits, or need not."""


class Copier(Protocol):
    #: What was measured and chosen at start.
    facts: dict[str, float | str]
    #: Larger payloads cannot be moved.
    largest_payload_bytes: int
    #: In-step loads are waited for layer by layer where that is possible, instead of before the whole forward pass.
    by_layers: bool

    def prefetch(self, job: LoadJob, rank: int, pool: PoolView) -> Handle | None:
        """Starts to bring the first bytes of a load that will come, to where no block is touched; its `block_ids` are
        not read. The load of the same job finds them, any other one forgets them. None: nothing was started.
        """

    def forget_prefetched(self) -> None:
        """What was prefetched will not be used."""

    def load(self, job: LoadJob, rank: int, pool: PoolView) -> Handle:
        """Pool to engine. An in-step load is ordered before whatever the engine enqueues next, or by its `layers`."""

    def load_ahead(self, job: LoadJob, rank: int, pool: PoolView) -> Handle | None:
        """Starts a load before its step, behind all that the engine has enqueued so far. The step of an in-step load
        calls `join` with what it was given. None: nothing was started.
        """

    def join(self, handle: Handle) -> None:
        """Orders a load that was started ahead as `load` orders its own."""

    def save(self, job: SaveJob, rank: int, pool: PoolView) -> Handle:
        """Engine to pool, ordered after whatever the engine has enqueued so far."""

    def fence(self) -> None:
        """Orders whatever the engine enqueues next behind the reading of blocks by all saves so far."""

    def close(self) -> None:
        """Waits for the copies under way and frees what the copier holds."""


class JobError(ValueError):
    """A job that names memory outside the pool or the KV cache, or columns that do not fit each other."""


def check_job(job: TransferJob, rank: int, layout: Layout, pool_bytes: int) -> None:
    """@throws JobError when copying this job would touch anything but its slots and blocks."""
    chunks = job.chunk_blocks.size
    if job.slot_offsets.ndim != 2 or not 0 <= rank < job.slot_offsets.shape[0]:
        raise JobError(f"job {job.job_id}: it has no slots for rank {rank}")
    columns = (job.slot_offsets[rank], job.skip_blocks, job.take_blocks, job.old_positions, job.new_positions)
    if any(column.shape != (chunks,) for column in columns):
        raise JobError(f"job {job.job_id}: its columns have different lengths")
    if int(job.take_blocks.sum()) != job.block_ids.size:
        raise JobError(f"job {job.job_id}: it takes {int(job.take_blocks.sum())} blocks and names {job.block_ids.size}")
    if chunks == 0:
        return
    skip, take, count = job.skip_blocks, job.take_blocks, job.chunk_blocks
    if skip.min() < 0 or take.min() < 0 or count.min() < 1 or bool(np.any(skip.astype(np.int64) + take > count)):
        raise JobError(f"job {job.job_id}: it takes blocks that its chunks do not have")
    if job.block_ids.size and (job.block_ids.min() < 0 or job.block_ids.max() >= layout.num_blocks):
        raise JobError(f"job {job.job_id}: it names blocks that the engine does not have")
    offsets = job.slot_offsets[rank].astype(np.int64)
    ends = offsets + count.astype(np.int64) * layout.block_bytes
    if (
        offsets.min() < 0
        or ends.max() > pool_bytes
        or bool(np.any(offsets // EXTENT_BYTES != (ends - 1) // EXTENT_BYTES))
    ):
        raise JobError(f"job {job.job_id}: a payload does not lie within one extent of the pool of {pool_bytes} bytes")
