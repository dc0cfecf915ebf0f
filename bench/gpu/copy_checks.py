"""The copier's copies on a real device, bit for bit against plain indexing: copy_probe.py's checks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from copy_jobs import BLOCK_TOKENS, CHUNK_BLOCKS, DEVICE, Caches, Ints, job_of, random_job, slot_places
from reprise_engine.copy.copier import EXTENT_BYTES
from reprise_engine.copy.copy_cuda import CudaCopier
from reprise_engine.copy.lane import CudaHandle
from reprise_engine.copy.layout import Layout
from reprise_engine.copy.move_torch import TorchMover
from reprise_engine.copy.pool_map import PoolMap
from reprise_engine.plan import LoadJob, PoolRef, SaveJob, StepPlan, TransferJob
from reprise_engine.worker.worker import WorkerSide


class Twin:
    """Plain copies: byte views of the caches on the device, chunk by chunk, segment by segment."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.segments = TorchMover(layout)._segments

    def parts(self, job: TransferJob, pool: Ints) -> Iterator[tuple[torch.Tensor, torch.Tensor, Ints]]:
        row = 0
        for chunk in range(job.chunk_blocks.size):
            count, skip, take = (int(c[chunk]) for c in (job.chunk_blocks, job.skip_blocks, job.take_blocks))
            blocks = torch.from_numpy(job.block_ids[row : row + take].astype(np.int64)).to(DEVICE)
            row += take
            for segment, start, run in zip(self.segments, self.layout.starts, self.layout.runs, strict=True):
                at = int(job.slot_offsets[0, chunk]) + count * int(start) + skip * int(run)
                yield segment, blocks, pool[at : at + take * int(run)].reshape(take, int(run))

    def save(self, job: TransferJob, pool: Ints) -> None:
        for segment, blocks, part in self.parts(job, pool):
            part[:] = segment.index_select(0, blocks).cpu().numpy()

    def load(self, job: TransferJob, pool: Ints) -> None:
        for segment, blocks, part in self.parts(job, pool):
            segment.index_copy_(0, blocks, torch.from_numpy(part.copy()).to(DEVICE))


def fill(caches: Caches) -> None:
    for tensor in caches.values():
        tensor.copy_(torch.randint(-128, 128, (tensor.numel(),), dtype=torch.int8, device=DEVICE).view(tensor.shape))


def same(a: Caches, b: Caches) -> bool:
    return all(torch.equal(a[key].contiguous().view(torch.int16), b[key].contiguous().view(torch.int16)) for key in a)


def loaded_right(seen: Caches, truth: Caches, caches: Caches, twin: Twin, load: LoadJob, pool: PoolMap) -> bool:
    """Whether a step saw what a plain load makes of `truth`. The next step overwrites the blocks."""
    for tensor in caches.values():
        tensor.zero_()
    torch.cuda.synchronize()
    for key, tensor in caches.items():
        tensor.copy_(truth[key])
    twin.load(load, pool.view)
    return same(seen, caches)


def check(copier: CudaCopier, layout: Layout, caches: Caches, pool: PoolMap, chunks: int, seed: int) -> dict[str, Any]:
    """Random jobs both ways beside their plain twins, with the compute stream working before and after."""
    rng, twin, wrong = np.random.default_rng(seed), Twin(layout), []
    size = int(slot_places(layout, chunks * 2)[-1]) + EXTENT_BYTES
    size = min(size, pool.bytes)
    heavy = torch.randn(4096, 4096, device=DEVICE, dtype=torch.bfloat16)
    for turn in range(4):
        fill(caches)
        pool.view[:size] = rng.integers(0, 256, size, dtype=np.uint8)
        save = random_job(SaveJob, layout, rng, chunks)
        expected = pool.view[:size].copy()
        twin.save(save, expected)
        torch.cuda.synchronize()
        # The step that computes these blocks is still under way when the save is enqueued …
        truth = {key: tensor.clone() for key, tensor in caches.items()}
        for tensor in caches.values():
            tensor.zero_()
        for _ in range(20):
            heavy = heavy @ heavy * 1e-3
        for key, tensor in caches.items():
            tensor.copy_(truth[key])
        handle = copier.save(save, 0, pool)
        copier.fence()
        # … and the next one overwrites them, behind the fence.
        for tensor in caches.values():
            tensor.zero_()
        torch.cuda.synchronize()
        if not handle.done or not np.array_equal(pool.view[:size], expected):
            wrong.append(f"save {turn}")

        load = random_job(LoadJob, layout, rng, chunks)
        for _ in range(20):
            heavy = heavy @ heavy * 1e-3
        for key, tensor in caches.items():  # these writes must come before the load's
            tensor.copy_(truth[key])
        handle = copier.load(load, 0, pool)
        seen = {key: tensor.clone() for key, tensor in caches.items()}  # the step that reads the blocks
        if not loaded_right(seen, truth, caches, twin, load, pool) or not handle.done:
            wrong.append(f"load {turn}")
        del truth, seen
    return {"wrong": wrong, "jobs": 8}


def loaded(copier: CudaCopier, load: LoadJob, pool: PoolMap, *, ahead: bool) -> tuple[CudaHandle, bool]:
    """A load before the step, or in it; and whether it was before it."""
    begun = copier.load_ahead(load, 0, pool) if ahead else None
    if begun is None:
        return copier.load(load, 0, pool), False
    copier.join(begun)
    return begun, True


def check_early(copier: CudaCopier, layout: Layout, caches: Caches, pool: PoolMap, chunks: int) -> dict[str, Any]:
    """Prefetched loads, dropped prefetches, loads begun ahead, waits by layer: bit for bit, with compute under way."""
    rng, twin, wrong = np.random.default_rng(5), Twin(layout), []
    size = min(int(slot_places(layout, chunks * 2)[-1]) + EXTENT_BYTES, pool.bytes)
    heavy = torch.randn(4096, 4096, device=DEVICE, dtype=torch.bfloat16)
    counts = {"prefetched": 0, "ahead": 0, "layered": 0}
    fill(caches)
    truth = {key: tensor.clone() for key, tensor in caches.items()}
    for turn, fate in enumerate(("taken", "none", "forgotten", "overtaken") * 4):
        copier.by_layers = turn % 8 >= 4
        pool.view[:size] = rng.integers(0, 256, size, dtype=np.uint8)
        load = random_job(LoadJob, layout, rng, chunks)
        load.job_id = turn * 2 + 1
        torch.cuda.synchronize()
        for _ in range(20):
            heavy = heavy @ heavy * 1e-3
        for key, tensor in caches.items():
            tensor.copy_(truth[key])
        handle = copier.prefetch(load, 0, pool) if fate != "none" else None
        counts["prefetched"] += handle is not None
        if fate == "forgotten":
            copier.forget_prefetched()
        if fate in ("forgotten", "overtaken"):
            if handle is not None:
                handle.event.synchronize()
            pool.view[:size] = rng.integers(0, 256, size, dtype=np.uint8)  # the leases fell: others write there
            load = replace(load, job_id=load.job_id + 1)
        handle, ahead = loaded(copier, load, pool, ahead=turn % 3 > 0)
        counts["ahead"] += ahead
        seen = {}
        counts["layered"] += handle.layers is not None
        for key, tensor in caches.items():
            if handle.layers is not None:
                handle.layers.wait(key)
            seen[key] = tensor.clone()
            heavy = heavy @ heavy * 1e-3
        left_out = handle.layers is not None and not handle.layers.finish()
        if not loaded_right(seen, truth, caches, twin, load, pool) or left_out or not handle.done:
            wrong.append(f"{fate} {turn}")
    copier.by_layers = False
    return {"wrong": wrong, "jobs": 16, **counts}


def check_torch(layout: Layout, caches: Caches, pool: PoolMap, chunks: int, staging: int) -> dict[str, Any]:
    copier = CudaCopier(layout, staging, TorchMover(layout))
    try:
        return check(copier, layout, caches, pool, chunks, 9)
    finally:
        copier.close()


def whole_worker(caches: Caches, layout: Layout, ref: PoolRef, staging: int) -> dict[str, Any]:
    """A save and a load through WorkerSide, as a connector would call it."""
    begin = time.perf_counter()
    worker = WorkerSide(0, 1, staging)
    worker.register(caches, layout.num_blocks, BLOCK_TOKENS)
    registered = time.perf_counter() - begin
    places, counts = slot_places(layout, 8), np.full(8, CHUNK_BLOCKS)
    blocks = np.arange(8 * CHUNK_BLOCKS)
    fill(caches)
    truth = {key: tensor.clone() for key, tensor in caches.items()}
    worker.begin_step(StepPlan(pool=ref))
    assert worker._pool is not None and worker._pool.wait_registered(60), "saves wait for that"
    worker.begin_step(StepPlan(saves=[job_of(SaveJob, places, counts, blocks)]))
    first = worker.end_step()
    torch.cuda.synchronize()
    worker.end_step()
    saved = worker.take_report()
    for tensor in caches.values():
        tensor[: 8 * CHUNK_BLOCKS] = 0
    job = job_of(LoadJob, places, counts, blocks)
    job.job_id = 2
    worker.begin_step(StepPlan(loads=[job]))
    torch.cuda.current_stream().synchronize()
    worker.end_step()
    loaded = worker.take_report()
    good = same(truth, caches)
    invalid = worker.take_invalid_blocks()
    worker.close()
    return {
        "good": good and not invalid,
        "register_s": round(registered, 3),
        "first_step": repr(first),
        "reports": [repr(saved), repr(loaded)],
        "counters": dict(worker.counters),
    }
