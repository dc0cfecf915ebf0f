"""How fast the copier is on a real device: copy_probe.py's measures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from copy_jobs import BLOCK_TOKENS, CHUNK_BLOCKS, Caches, job_of, long_job, slot_places
from reprise_engine.copy.copier import EXTENT_BYTES
from reprise_engine.copy.copy_cuda import CudaCopier
from reprise_engine.copy.dma import IN_STREAM_ORDER
from reprise_engine.copy.layout import Layout
from reprise_engine.copy.pool_map import PoolMap
from reprise_engine.plan import LoadJob, SaveJob


def measure_early(copier: CudaCopier, layout: Layout, caches: Caches, pool: PoolMap, tokens: int) -> dict[str, Any]:
    """A claim, its step 5 ms later, and when what arrives: by events on the compute stream, ms after the claim.

    `ahead`: planned 2 ms after the claim, with a step that takes 16 ms to prepare; `not ahead`: begun with that step.
    `first_layer` and `last_layer`: when the pass may read them. Chunks are of 16 MiB, as the connector chooses them.
    """
    job = long_job(LoadJob, layout, tokens)
    names = list(caches)
    out: dict[str, Any] = {"mib": layout.payload_bytes(job.block_ids.size) >> 20}
    for name, early, by_layers, planned, step in (
        ("plain", False, False, None, 0.005),
        ("prefetched", True, False, None, 0.005),
        ("layered", False, True, None, 0.005),
        ("both", True, True, None, 0.005),
        ("not ahead", True, True, None, 0.016),
        ("ahead", True, True, 0.002, 0.016),
    ):
        rows = []
        copier.by_layers = by_layers
        for turn in range(6):
            torch.cuda.synchronize()
            job.job_id += 1
            claim, first, last = (torch.cuda.Event(enable_timing=True) for _ in range(3))
            claim.record()
            begin = time.perf_counter()
            begun = copier.prefetch(job, 0, pool) if early else None
            prefetch_ms = (time.perf_counter() - begin) * 1e3
            wait_until(begin + (step if planned is None else planned))
            called = time.perf_counter()
            handle = copier.load(job, 0, pool) if planned is None else copier.load_ahead(job, 0, pool)
            load_ms = (time.perf_counter() - called) * 1e3
            if planned is not None:
                wait_until(begin + step)
                copier.join(handle)
            groups = 1 if handle.layers is None else len(handle.layers._events)
            for layer in names:
                if handle.layers is not None:
                    handle.layers.wait(layer)
                if layer == names[0]:
                    first.record()
            last.record()
            torch.cuda.synchronize()
            if turn > 0:
                rows.append((claim.elapsed_time(first), claim.elapsed_time(last), prefetch_ms, load_ms))
        columns = [round(statistics.median(column), 3) for column in zip(*rows, strict=True)]
        out[name] = dict(zip(("first_layer", "last_layer", "prefetch_call", "load_call"), columns, strict=True))
        out[name] |= {"prefetched": begun is not None, "groups": groups}
    copier.by_layers = False
    return out


def wait_until(moment: float) -> None:
    while time.perf_counter() < moment:
        pass


def timed(run: Callable[[], Any], size: int, repeats: int = 7) -> dict[str, float]:
    walls, calls = [], []
    for turn in range(repeats + 1):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        called = time.perf_counter() - begin
        torch.cuda.synchronize()
        if turn > 0:
            walls.append(time.perf_counter() - begin)
            calls.append(called)
    return {
        "gbs": round(size / statistics.median(walls) / 1e9, 2),
        "best_gbs": round(size / min(walls) / 1e9, 2),
        "enqueue_ms": round(statistics.median(calls) * 1e3, 3),
        "ms": round(statistics.median(walls) * 1e3, 3),
    }


def plain(copier: CudaCopier, pool: PoolMap, *, to_host: bool) -> dict[str, float]:
    lane = copier.saves if to_host else copier.loads
    size = min(lane.memory.numel(), EXTENT_BYTES)
    device, host = np.array([lane.memory.data_ptr()]), np.array([pool.address])
    ends = (host, device) if to_host else (device, host)
    stream = lane.link.cuda_stream

    def run() -> None:
        for _ in range(16):
            copier.dma.copy(*ends, np.array([size]), stream, order=IN_STREAM_ORDER, batch=False)

    return timed(run, 16 * size)


def measure(copier: CudaCopier, layout: Layout, pool: PoolMap, tokens: int) -> dict[str, Any]:
    chunks = tokens // (CHUNK_BLOCKS * BLOCK_TOKENS)
    rng = np.random.default_rng(1)
    places = slot_places(layout, chunks)
    counts = np.full(chunks, CHUNK_BLOCKS)
    blocks = rng.permutation(layout.num_blocks)[: chunks * CHUNK_BLOCKS]
    total = layout.payload_bytes(chunks * CHUNK_BLOCKS)
    out: dict[str, Any] = {"mib": total >> 20, "chunks": chunks}
    for name, slots in (("neighbours", places), ("scattered", places[rng.permutation(chunks)])):
        load, save = (job_of(kind, slots, counts, blocks) for kind in (LoadJob, SaveJob))
        out[name] = {
            "save": timed(lambda save=save: copier.save(save, 0, pool), total),  # type: ignore[misc]
            "load": timed(lambda load=load: copier.load(load, 0, pool), total),  # type: ignore[misc]
        }
    load, save = job_of(LoadJob, places, counts, blocks, in_step=False), job_of(SaveJob, places, counts, blocks)
    out["both_ways"] = timed(lambda: (copier.load(load, 0, pool), copier.save(save, 0, pool)), 2 * total)
    return out
