"""Random jobs and pools for the worker's tests."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np

from reprise_engine.copy.layout import Layout
from reprise_engine.plan import LoadJob, PoolRef, SaveJob

Job = TypeVar("Job", LoadJob, SaveJob)
FAR = float("inf")


def make_pool(folder: Path, size: int, epoch: int = 1) -> PoolRef:
    path = folder / f"pool-{epoch}"
    path.touch(mode=0o600)
    with path.open("r+b") as file:
        file.truncate(size)
    return PoolRef(epoch=epoch, path=str(path), bytes=size, capacity_bytes=size)


def make_job(
    kind: type[Job],
    *,
    slots: list[int],
    counts: list[int],
    blocks: list[int],
    skips: list[int] | None = None,
    takes: list[int] | None = None,
    job_id: int = 1,
    request_id: str = "r",
    epoch: int = 1,
    valid_until: float = FAR,
    moved_by: int = 0,
    in_step: bool = True,
    ranks: int = 1,
) -> Job:
    chunks = len(counts)
    positions = np.arange(chunks, dtype=np.int64) * 64
    columns = dict(
        job_id=job_id,
        epoch=epoch,
        slot_offsets=np.tile(np.array(slots, dtype=np.int64), (ranks, 1)),
        chunk_blocks=np.array(counts, dtype=np.int32),
        skip_blocks=np.array(skips or [0] * chunks, dtype=np.int32),
        take_blocks=np.array(takes if takes is not None else counts, dtype=np.int32),
        block_ids=np.array(blocks, dtype=np.int32),
        old_positions=positions,
        new_positions=positions + moved_by,
        valid_until=valid_until,
    )
    if kind is LoadJob:
        columns |= {"request_id": request_id, "in_step": in_step}
    return kind(**columns)  # type: ignore[arg-type]


def random_job(kind: type[Job], layout: Layout, rng: np.random.Generator, slot_bytes: int, slots: int) -> Job:
    """Chunks of one to four blocks in slots of their own, some moved in part, to distinct blocks."""
    chunks = int(rng.integers(1, slots + 1))
    counts = rng.integers(1, 5, chunks)
    skips = np.array([rng.integers(0, count + 1) if rng.random() < 0.4 else 0 for count in counts])
    takes = np.array([rng.integers(0, count - skip + 1) for count, skip in zip(counts, skips, strict=True)])
    whole = rng.random(chunks) < 0.5
    skips[whole], takes[whole] = 0, counts[whole]
    blocks = rng.permutation(layout.num_blocks)[: takes.sum()]
    places = rng.permutation(slots)[:chunks] if rng.random() < 0.5 else np.arange(chunks)
    return make_job(
        kind,
        slots=(places * slot_bytes).tolist(),
        counts=counts.tolist(),
        skips=skips.tolist(),
        takes=takes.tolist(),
        blocks=blocks.tolist(),
    )
