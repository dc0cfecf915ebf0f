"""KV shapes and jobs for copy_probe.py: what is copied from where to where."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from reprise_engine.copy.copier import EXTENT_BYTES
from reprise_engine.copy.layout import Layout
from reprise_engine.plan import LoadJob, PoolRef, SaveJob

Job = TypeVar("Job", LoadJob, SaveJob)
Caches = dict[str, torch.Tensor]
Ints = npt.NDArray[Any]
BLOCK_TOKENS = 16
CHUNK_BLOCKS = 4
DEVICE = "cuda"


def packed(layers: int, heads: int, content: int) -> Callable[[int], Caches]:
    """(NB, H, BS, 2D) over memory [B, N, H, C], as vLLM 0.26 has it."""

    def make(blocks: int) -> Caches:
        shape = (blocks, BLOCK_TOKENS, heads, content)
        return {
            f"layers.{i}": torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE).permute(0, 2, 1, 3)
            for i in range(layers)
        }

    return make


def latent(layers: int) -> Callable[[int], Caches]:
    def make(blocks: int) -> Caches:
        shape = (blocks, BLOCK_TOKENS, 576)
        return {f"layers.{i}": torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE) for i in range(layers)}

    return make


def heads_outside(layers: int, heads: int) -> Callable[[int], Caches]:
    """LHBNC: a run of 8 KiB for every head."""

    def make(blocks: int) -> Caches:
        shape = (heads, blocks, BLOCK_TOKENS, 256)
        return {
            f"layers.{i}": torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE).permute(1, 0, 2, 3)
            for i in range(layers)
        }

    return make


SHAPES: dict[str, Callable[[int], Caches]] = {
    "8b": packed(32, 8, 256),
    "1b": packed(16, 8, 128),
    "mla": latent(27),
    "heads_outside": heads_outside(32, 8),
}


def job_of(
    kind: type[Job],
    slots: Ints,
    counts: Ints,
    blocks: Ints,
    skips: Ints | None = None,
    takes: Ints | None = None,
    *,
    in_step: bool = True,
) -> Job:
    counts = np.asarray(counts, np.int32)
    zeros = np.zeros(counts.size, np.int64)
    columns: dict[str, Any] = {
        "job_id": 1,
        "epoch": 1,
        "slot_offsets": np.asarray(slots, np.int64)[None, :],
        "chunk_blocks": counts,
        "skip_blocks": np.zeros(counts.size, np.int32) if skips is None else np.asarray(skips, np.int32),
        "take_blocks": counts if takes is None else np.asarray(takes, np.int32),
        "block_ids": np.asarray(blocks, np.int32),
        "old_positions": zeros,
        "new_positions": zeros,
        "valid_until": float("inf"),
    }
    if kind is LoadJob:
        columns["in_step"] = in_step
    return kind(**columns)


def slot_places(layout: Layout, count: int) -> Ints:
    """Slots as the cache cuts them: multiples of 4 KiB, none across an extent's border."""
    slot = -(-layout.payload_bytes(CHUNK_BLOCKS) // 4096) * 4096
    each = EXTENT_BYTES // slot
    number = np.arange(count)
    return number // each * EXTENT_BYTES + number % each * slot


def random_job(kind: type[Job], layout: Layout, rng: np.random.Generator, chunks: int) -> Job:
    counts = rng.integers(1, CHUNK_BLOCKS + 1, chunks)
    counts[rng.random(chunks) < 0.7] = CHUNK_BLOCKS
    whole = rng.random(chunks) < 0.7
    skips = np.where(whole, 0, rng.integers(0, counts + 1))
    takes = np.where(whole, counts, rng.integers(0, counts - skips + 1))
    places = slot_places(layout, chunks * 2)
    slots = places[rng.permutation(places.size)[:chunks]] if rng.random() < 0.5 else places[:chunks]
    return job_of(kind, slots, counts, rng.permutation(layout.num_blocks)[: takes.sum()], skips, takes)


def long_job(kind: type[Job], layout: Layout, tokens: int, *, in_step: bool = True) -> Job:
    """A prompt in chunks of 16 MiB, as the connector chooses them, in blocks that lie anywhere."""
    blocks_each = max(1, (16 << 20) // layout.block_bytes)
    chunks = max(1, tokens // BLOCK_TOKENS // blocks_each)
    slot = -(-layout.payload_bytes(blocks_each) // 4096) * 4096
    each = EXTENT_BYTES // slot
    slots = np.arange(chunks) // each * EXTENT_BYTES + np.arange(chunks) % each * slot
    blocks = np.random.default_rng(2).permutation(layout.num_blocks)[: chunks * blocks_each]
    return job_of(kind, slots, np.full(chunks, blocks_each), blocks, in_step=in_step)


@contextlib.contextmanager
def pool_file(mib: int) -> Iterator[PoolRef]:
    """A pool as the cache makes it, while the `with` lasts."""
    path = Path(f"/dev/shm/reprise-bench-{os.getpid()}")
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, mib << 20)
        yield PoolRef(epoch=1, path=str(path), bytes=mib << 20, capacity_bytes=mib << 20)
    finally:
        path.unlink(missing_ok=True)
