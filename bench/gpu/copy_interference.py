#!/usr/bin/env python3
"""What copies cost the steps that run beside them: `PYTHONPATH=python bench/gpu/copy_interference.py --out FILE`.

Steps as vLLM's decode steps with asynchronous scheduling: three small copies to the device, a CUDA graph (the matrices
of an 8B model, four tokens), two small copies back on a stream of their own, and the next step enqueued before the last
one's tokens are waited for. Beside them runs nothing, a part of what a save or a load consists of, or a whole one.
Prints one JSON line: ms a step before, beside and after it, of these the inputs', the graph's and the outputs' part on
the device, and GB/s of the copies.
"""

from __future__ import annotations

import argparse
import itertools
import json
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

from copy_jobs import BLOCK_TOKENS, DEVICE, SHAPES, long_job, pool_file
from reprise_engine.copy.copy_cuda import CudaCopier, CudaRegistrar
from reprise_engine.copy.dma import IN_STREAM_ORDER
from reprise_engine.copy.lane import Lane
from reprise_engine.copy.layout import Layout, read_layout
from reprise_engine.copy.pool_map import PoolMap
from reprise_engine.copy.probe import open_fastest
from reprise_engine.plan import LoadJob, PoolRef, SaveJob

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
        self.parts: dict[str, float] = {}
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

    def enqueue(self) -> tuple[torch.cuda.Event, Any]:
        """An event behind the step; its outputs, and marks between its parts."""
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        marks[0].record()
        for target in self._inputs:
            target.copy_(torch.zeros(8, dtype=torch.int32).pin_memory(), non_blocking=True)
        marks[1].record()
        self._graph.replay()
        marks[2].record()
        done = torch.cuda.Event(blocking=True)
        self._copy_stream.wait_stream(self._main)
        with torch.cuda.stream(self._copy_stream):
            answers = [self._out.to("cpu", non_blocking=True) for _ in range(2)]
            marks[3].record(self._copy_stream)
            done.record(self._copy_stream)
        return done, (answers, marks)

    def steps(self, go_on: Callable[[int], bool]) -> list[float]:
        """Seconds between the ends of steps, for as long as `go_on`; `parts` are the means of their parts, in ms."""
        ends, parts = [], []
        before = self.enqueue()
        while go_on(len(ends)):
            following = self.enqueue()
            before[0].synchronize()
            ends.append(time.perf_counter())
            parts.append([mark.elapsed_time(later) for mark, later in itertools.pairwise(before[1][1])])
            before = following
        before[0].synchronize()
        self.parts = dict(zip(("in", "graph", "out"), np.mean(parts, axis=0).round(3).tolist(), strict=True))
        return np.diff(ends).tolist()


@dataclass
class Beside:
    """What runs beside the steps: `enqueue` starts a job and gives the event of its end."""

    enqueue: Callable[[], torch.cuda.Event]
    bytes: int


def variants(copier: CudaCopier, layout: Layout, pool: PoolMap, tokens: int) -> dict[str, Callable[[], Beside]]:
    """What runs beside the steps, by name; those that make the engine's graphs slower stand last."""
    save, load = long_job(SaveJob, layout, tokens), long_job(LoadJob, layout, tokens, in_step=False)
    size = layout.payload_bytes(int(save.block_ids.size))

    def whole(way: str, method: str = "staged", *, pauses: bool = True, graphs: bool = True) -> Callable[[], Beside]:
        def prepare() -> Beside:
            copier.saves.method = copier.loads.method = method
            copier.saves.pause = Lane.pause.__get__(copier.saves) if pauses else lambda: in_a_row(copier.saves)
            copier.mover._graphs = captured if graphs else {}
            if way == "save":
                return Beside(lambda: copier.save(save, 0, pool).event, size)
            if way == "load":
                return Beside(lambda: copier.load(load, 0, pool).event, size)

            def both() -> torch.cuda.Event:
                copier.load(load, 0, pool)
                return copier.save(save, 0, pool).event

            return Beside(both, 2 * size)

        return prepare

    def link(*, to_host: bool) -> Callable[[], Beside]:
        """Large copies one after another, without pauses."""

        def prepare() -> Beside:
            lane = copier.saves if to_host else copier.loads
            most = lane.places[0].numel()
            device, host = np.array([lane.places[0].data_ptr()]), np.array([pool.address])
            ends = (host, device) if to_host else (device, host)
            repeats = max(1, size // most)

            def enqueue() -> torch.cuda.Event:
                for _ in range(repeats):
                    copier.dma.copy(*ends, np.array([most]), lane.link.cuda_stream, order=IN_STREAM_ORDER, batch=False)
                return lane.end_on(lane.link).event

            return Beside(enqueue, repeats * most)

        return prepare

    captured = copier.mover._graphs
    return {
        "save": whole("save"),
        "load": whole("load"),
        "both": whole("both"),
        "save, pages": whole("save", "pages"),
        "copies in": link(to_host=False),
        "copies out": link(to_host=True),
        "save without pauses": whole("save", pauses=False),
        "save, kernels one by one": whole("save", graphs=False),
        "load, kernels one by one": whole("load", graphs=False),
    }


def in_a_row(lane: Lane) -> None:
    """In place of a pause: the link waits for the gathered place alone."""
    event = torch.cuda.Event()
    event.record(lane.kernel)
    lane.link.wait_event(event)


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
    parts = decoder.parts
    after = decoder.steps(lambda count: count < 30)
    return {
        "alone_ms": round(statistics.median(alone) * 1e3, 3),
        "beside_ms": round(statistics.mean(with_it) * 1e3, 3),
        "beside_median_ms": round(statistics.median(with_it) * 1e3, 3),
        "beside_max_ms": round(max(with_it) * 1e3, 3),
        "call_ms": round(statistics.median(calls) * 1e3, 3) if calls else 0.0,
        "parts_ms": parts,
        "after_ms": round(statistics.median(after) * 1e3, 3),
        "gbs": round(done * beside.bytes / took / 1e9, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each variant")
    parser.add_argument("--pool-mib", type=int, default=4096)
    args = parser.parse_args()
    out: dict[str, Any] = {"torch": torch.__version__, "args": vars(args), "variants": {}}
    try:
        out["device"] = torch.cuda.get_device_name(0)
        with pool_file(args.pool_mib) as ref:
            measure_all(ref, args.seconds, out)
    except Exception:
        out["error"] = traceback.format_exc()
    line = json.dumps(out)
    Path(args.out).write_text(line + "\n")
    print(line)


def measure_all(ref: PoolRef, seconds: float, out: dict[str, Any]) -> None:
    decoder = Decoder(32, 4096)
    blocks = _tokens // BLOCK_TOKENS + 64
    layout = read_layout(SHAPES["8b"](blocks), blocks, BLOCK_TOKENS)
    copier = open_fastest(layout, 512 << 20)
    out["facts"] = dict(copier.facts)
    pool = PoolMap(ref, CudaRegistrar(layout.device))
    pool.wait_registered(60)
    for name, prepare in variants(copier, layout, pool, _tokens).items():
        try:
            out["variants"][name] = measured(decoder, prepare(), seconds)
        except Exception:
            out["variants"][name] = {"error": traceback.format_exc(limit=8)}
        print(name, out["variants"][name], file=sys.stderr, flush=True)
    copier.close()
    pool.close()


if __name__ == "__main__":
    main()
