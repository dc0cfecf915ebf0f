"""Copies for KV caches in host memory (engines on a CPU): one numpy gather per segment, done when the call returns.

Rows of a payload begin at any byte, so the pool is looked at through a view whose row r is "the run at byte r". The
rows of that view overlap; numpy then gathers or scatters many blocks of a segment in one call.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from reprise_engine.copy.copier import EXTENT_BYTES, check_job

if TYPE_CHECKING:
    from reprise_engine.copy.copier import Handle, PoolView
    from reprise_engine.copy.layers import LayerWaits
    from reprise_engine.copy.layout import Layout
    from reprise_engine.plan import LoadJob, SaveJob, TransferJob

Bytes = npt.NDArray[np.uint8]
#: Bytes gathered at once: numpy makes a copy in between, which shall stay in the processor's cache.
GATHER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """A copy that was over when it was asked for."""

    ended_at: float
    done: bool = True
    layers: LayerWaits | None = None


class HostCopier:
    def __init__(self, layout: Layout) -> None:
        self.facts: dict[str, float | str] = {"method": "host"}
        self.largest_payload_bytes = EXTENT_BYTES
        self.by_layers = False
        self._layout = layout
        self._segments = [
            _blocks_at(int(base), int(stride), int(run), layout.num_blocks)
            for base, stride, run in zip(layout.bases, layout.strides, layout.runs, strict=True)
        ]

    def prefetch(self, job: LoadJob, rank: int, pool: PoolView) -> None:
        """Nothing: a copy by the engine's own thread is over when it returns."""

    def forget_prefetched(self) -> None:
        pass

    def load_ahead(self, job: LoadJob, rank: int, pool: PoolView) -> None:
        """Nothing, for the same reason."""

    def join(self, handle: Handle) -> None:
        pass

    def load(self, job: LoadJob, rank: int, pool: PoolView) -> Ended:
        return self._move(job, rank, pool, to_engine=True)

    def save(self, job: SaveJob, rank: int, pool: PoolView) -> Ended:
        return self._move(job, rank, pool, to_engine=False)

    def fence(self) -> None:
        """Nothing is ever under way."""

    def close(self) -> None:
        self._segments = []

    def _move(self, job: TransferJob, rank: int, pool: PoolView, *, to_engine: bool) -> Ended:
        check_job(job, rank, self._layout, pool.bytes)
        take = job.take_blocks.astype(np.int64)
        count = np.repeat(job.chunk_blocks.astype(np.int64), take)
        slot = np.repeat(job.slot_offsets[rank].astype(np.int64), take)
        index = np.arange(count.size) - np.repeat(np.cumsum(take) - take - job.skip_blocks, take)
        for segment, start, run in zip(self._segments, self._layout.starts, self._layout.runs, strict=True):
            rows = slot + count * start + index * run
            payloads = as_strided(pool.view, (pool.bytes - int(run) + 1, int(run)), (1, 1))
            step = max(1, GATHER_BYTES // int(run))
            for begin in range(0, rows.size, step):
                some, blocks = rows[begin : begin + step], job.block_ids[begin : begin + step]
                if to_engine:
                    segment[blocks] = payloads[some]
                else:
                    payloads[some] = segment[blocks]
        return Ended(time.monotonic())


def _blocks_at(base: int, stride: int, run: int, num_blocks: int) -> Bytes:
    """[blocks, run] over the engine's memory."""
    span = (num_blocks - 1) * stride + run
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * span).from_address(base))
    return as_strided(memory, (num_blocks, run), (stride, 1))
