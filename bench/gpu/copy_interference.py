#!/usr/bin/env python3
"""What copies cost the steps that run beside them: `PYTHONPATH=python bench/gpu/copy_interference.py --out FILE`.

Steps as vLLM's decode steps with asynchronous scheduling: three small copies to the device, a CUDA graph (the matrices
of an 8B model, four tokens), two small copies back on a stream of their own, and the next step enqueued before the last
one's tokens are waited for. Beside them runs nothing, a part of what a save or a load consists of, or a whole one.
Prints one JSON line: ms a step without, ms with, GB/s of the copies.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from copy_jobs import BLOCK_TOKENS, DEVICE, SHAPES, job_of
from reprise_vllm.copier import EXTENT_BYTES
from reprise_vllm.copy_cuda import CudaCopier, CudaRegistrar
from reprise_vllm.layout import Layout, read_layout
from reprise_vllm.plan import LoadJob, PoolRef, SaveJob
from reprise_vllm.pool_map import PoolMap
from reprise_vllm.probe import open_fastest

_tokens = 10_000


class Decoder:
    """An engine that decodes for four requests."""

    def __init__(self, layers: int, hidden: int) -> None:
        sizes = ((hidden, hidden * 3 // 2), (hidden, hidden), (hidden, hidden * 7), (hidden * 7 // 2, hidden))
        shape = [torch.randn(rows, columns, device=DEVICE, dtype=torch.bfloat16) for rows, columns in sizes]
        self._weights = [[matrix.clone() for matrix in shape] for _ in range(layers)]
        self._x = torch.randn(4, hidden, device=DEVICE, dtype=torch.bfloat16)
        self._inputs = [torch.zeros(8, dtype=torch.int32, device=DEVICE) for _ in range(3)]
        self._out = torch.zeros(4, dtype=torch.int64, device=DEVICE)
        self._copy_stream = torch.cuda.Stream()
        self._main = torch.cuda.current_stream()
        self._forward()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._forward()

    def _forward(self) -> None:
        x = self._x
        for qkv, o, up, down in self._weights:
            attended = (x @ qkv)[:, : o.shape[0]] @ o
            x = (attended @ up)[:, : down.shape[0]] @ down
            x = x / x.norm(dim=-1, keepdim=True)
        self._out.copy_(x.argmax(dim=-1))

    def enqueue(self) -> tuple[torch.cuda.Event, list[torch.Tensor]]:
        for target in self._inputs:
            target.copy_(torch.zeros(8, dtype=torch.int32).pin_memory(), non_blocking=True)
        self._graph.replay()
        done = torch.cuda.Event(blocking=True)
        self._copy_stream.wait_stream(self._main)
        with torch.cuda.stream(self._copy_stream):
            answers = [self._out.to("cpu", non_blocking=True) for _ in range(2)]
            done.record(self._copy_stream)
        return done, answers

    def steps(self, go_on: Callable[[int], bool]) -> list[float]:
        """Seconds between the ends of steps, for as long as `go_on`."""
        ends = []
        before = self.enqueue()
        while go_on(len(ends)):
            following = self.enqueue()
            before[0].synchronize()
            ends.append(time.perf_counter())
            before = following
        before[0].synchronize()
        return np.diff(ends).tolist()


@dataclass
class Beside:
    """What runs beside the steps: `enqueue` starts a job and gives the event of its end."""

    enqueue: Callable[[], torch.cuda.Event]
    bytes: int


class SmallerCopies:
    """The driver's copies, none larger than `most` bytes."""

    def __init__(self, dma: Any, most: int) -> None:
        self._dma, self._most, self.has_batches = dma, most, dma.has_batches

    def copy(self, targets: Any, sources: Any, sizes: Any, stream: int, *, order: int, batch: bool) -> None:
        counts = -(-sizes // self._most)
        of = np.repeat(np.arange(sizes.size), counts)
        at = (np.arange(of.size) - np.repeat(np.cumsum(counts) - counts, counts)) * self._most
        self._dma.copy(
            targets[of] + at,
            sources[of] + at,
            np.minimum(self._most, sizes[of] - at),
            stream,
            order=order,
            batch=batch,
        )


def long_job(kind: Any, layout: Layout, tokens: int) -> Any:
    """Chunks of 16 MiB, as the connector chooses them, in blocks that lie anywhere."""
    blocks_each = max(1, (16 << 20) // layout.block_bytes)
    chunks = max(1, tokens // BLOCK_TOKENS // blocks_each)
    slot = -(-layout.payload_bytes(blocks_each) // 4096) * 4096
    each = EXTENT_BYTES // slot
    slots = np.arange(chunks) // each * EXTENT_BYTES + np.arange(chunks) % each * slot
    blocks = np.random.default_rng(2).permutation(layout.num_blocks)[: chunks * blocks_each]
    more = {"in_step": False} if kind is LoadJob else {}
    return job_of(kind, slots, np.full(chunks, blocks_each), blocks, **more)


def variants(copier: CudaCopier, layout: Layout, pool: PoolMap, tokens: int) -> dict[str, Callable[[], Beside]]:
    save, load = long_job(SaveJob, layout, tokens), long_job(LoadJob, layout, tokens)
    size = layout.payload_bytes(int(save.block_ids.size))
    dma = copier.dma

    def whole(way: str, method: str = "staged", most: int | None = None) -> Callable[[], Beside]:
        def prepare() -> Beside:
            copier.saves.method = copier.loads.method = method
            copier.dma = dma if most is None else SmallerCopies(dma, most)
            if way == "save":
                return Beside(lambda: copier.save(save, 0, pool).event, size)
            if way == "load":
                return Beside(lambda: copier.load(load, 0, pool).event, size)

            def both() -> torch.cuda.Event:
                copier.load(load, 0, pool)
                return copier.save(save, 0, pool).event

            return Beside(both, 2 * size)

        return prepare

    def link(to_host: bool, most: int, batch: bool) -> Callable[[], Beside]:
        def prepare() -> Beside:
            lane = copier.saves if to_host else copier.loads
            count = lane.places[0].numel() // most
            device = lane.places[0].data_ptr() + np.arange(count) * most
            host = pool.address + np.arange(count) * most
            ends = (host, device) if to_host else (device, host)
            repeats = max(1, size // (count * most))

            def enqueue() -> torch.cuda.Event:
                for _ in range(repeats):
                    dma.copy(*ends, np.full(count, most), lane.link.cuda_stream, order=1, batch=batch)
                return lane.end_on(lane.link).event

            return Beside(enqueue, repeats * count * most)

        return prepare

    def kernels(to_engine: bool) -> Callable[[], Beside]:
        from reprise_vllm.pieces import cut_job

        def prepare() -> Beside:
            lane = copier.loads if to_engine else copier.saves
            cut = cut_job(save, 0, layout, lane.ring())

            def enqueue() -> torch.cuda.Event:
                with torch.cuda.stream(lane.kernel):
                    rows = copier._upload(cut)
                    for piece in cut.pieces:
                        copier.mover.move(cut, piece, rows, lane.places[0], to_engine=to_engine)
                return lane.end_on(lane.kernel).event

            return Beside(enqueue, size)

        return prepare

    named: dict[str, Callable[[], Beside]] = {}
    for way in ("save", "load", "both"):
        named[way] = whole(way)
        for most in (8 << 20, 2 << 20, 512 << 10):
            named[f"{way}, copies of {most >> 10} KiB"] = whole(way, most=most)
        named[f"{way}, pages"] = whole(way, "pages")
    for to_host in (True, False):
        title = "link out" if to_host else "link in"
        for most in (copier.saves.places[0].numel(), 2 << 20):
            named[f"{title}, {most >> 10} KiB, one by one"] = link(to_host, most, batch=False)
        named[f"{title}, 512 KiB, batches"] = link(to_host, 512 << 10, batch=True)
    named["gather"] = kernels(to_engine=False)
    named["scatter"] = kernels(to_engine=True)
    return named


def measured(decoder: Decoder, beside: Beside, seconds: float) -> dict[str, float]:
    """Steps alone, then steps while three jobs are under way at any time."""
    alone = decoder.steps(lambda count: count < 30)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    enqueued: list[torch.cuda.Event] = [beside.enqueue() for _ in range(3)]
    calls: list[float] = []

    def go_on(count: int) -> bool:
        if sum(not event.query() for event in enqueued[-3:]) < 3:
            called = time.perf_counter()
            enqueued.append(beside.enqueue())
            calls.append(time.perf_counter() - called)
        return time.perf_counter() - begin < seconds

    with_it = decoder.steps(go_on)
    done = sum(event.query() for event in enqueued)
    took = time.perf_counter() - begin
    torch.cuda.synchronize()
    return {
        "alone_ms": round(statistics.median(alone) * 1e3, 3),
        "beside_ms": round(statistics.mean(with_it) * 1e3, 3),
        "beside_median_ms": round(statistics.median(with_it) * 1e3, 3),
        "beside_max_ms": round(max(with_it) * 1e3, 3),
        "call_ms": round(statistics.median(calls) * 1e3, 3) if calls else 0.0,
        "gbs": round(done * beside.bytes / took / 1e9, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each variant")
    parser.add_argument("--pool-mib", type=int, default=4096)
    args = parser.parse_args()
    path = Path(f"/dev/shm/reprise-interference-{os.getpid()}")
    out: dict[str, Any] = {"torch": torch.__version__, "args": vars(args), "variants": {}}
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, args.pool_mib << 20)
        out["device"] = torch.cuda.get_device_name(0)
        decoder = Decoder(32, 4096)
        blocks = _tokens // BLOCK_TOKENS + 64
        caches = SHAPES["8b"](blocks)
        layout = read_layout(caches, blocks, BLOCK_TOKENS)
        copier = open_fastest(layout, 512 << 20)
        out["facts"] = dict(copier.facts)
        size = args.pool_mib << 20
        pool = PoolMap(PoolRef(epoch=1, path=str(path), bytes=size, capacity_bytes=size), CudaRegistrar(layout.device))
        pool.wait_registered(60)
        for name, prepare in variants(copier, layout, pool, _tokens).items():
            try:
                out["variants"][name] = measured(decoder, prepare(), args.seconds)
            except Exception:
                out["variants"][name] = {"error": traceback.format_exc(limit=8)}
            print(name, out["variants"][name], file=sys.stderr, flush=True)
        copier.close()
        pool.close()
    except Exception:
        out["error"] = traceback.format_exc()
    finally:
        path.unlink(missing_ok=True)
    line = json.dumps(out)
    Path(args.out).write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
