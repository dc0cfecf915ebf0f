"""The gather and scatter kernel: runs of engine blocks ⇄ payloads in staging, all blocks of a piece at once.

A program moves one run after another. Where from it reads in tables: the segments' (layout.py) and the job's
(pieces.py), whose address and whose next piece stand in a few numbers on the device. So every piece is the same launch,
and can be a CUDA graph. That is for the engine's sake: beside another stream's kernels that are launched one by one its
own graphs get slower, 0.3 us for each of their kernels or 3 % of a decode step, and stay so while the GPU has work.
Beside graphs they do not (measured on H200: bench/gpu/copy_interference.py).

Imported only where Triton is there.
"""

# Triton has no annotations, and is not installed everywhere; a kernel's arguments are Triton's, not Python's.
# mypy: disable-error-code="misc, untyped-decorator, no-untyped-call, no-untyped-def, import-not-found, import-untyped"
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import triton
import triton.language as tl

from reprise_engine.log import log

if TYPE_CHECKING:
    from reprise_engine.copy.layout import Layout
    from reprise_engine.copy.mover import Upload
    from reprise_engine.copy.pieces import CutJob, Piece


#: Bytes that a program moves at once; more only costs registers.
TILE_BYTES = 8192
#: Enough to keep any of today's GPUs busy; a full place of 64 KiB runs has as many.
PROGRAMS = 1024


@triton.jit(do_not_specialize=["segments_count"])
def move_runs(
    segments,
    segments_count,
    now,
    LOAD: tl.constexpr,
    ALIGN: tl.constexpr,
    TILE: tl.constexpr,
):
    # now: the job's table, its pieces, its rows, the piece to move.
    table = tl.load(now).to(tl.pointer_type(tl.int64))
    pieces = tl.load(now + 1)
    rows_count = tl.load(now + 2)
    piece = table + tl.load(now + 3)
    first = tl.load(piece)
    moved_rows = tl.load(piece + pieces)
    first_segment = tl.load(piece + 2 * pieces)
    runs = moved_rows * tl.load(piece + 3 * pieces)
    rows = table + 4 * pieces
    number = tl.program_id(0).to(tl.int64)
    while number < runs:
        row = first + number % moved_rows
        segment = first_segment + number // moved_rows
        base = tl.load(segments + segment)
        stride = tl.load(segments + segments_count + segment)
        run = tl.load(segments + 2 * segments_count + segment)
        start = tl.load(segments + 3 * segments_count + segment)
        block = tl.load(rows + row)
        chunk = tl.load(rows + rows_count + row)
        blocks = tl.load(rows + 2 * rows_count + row)
        index = tl.load(rows + 3 * rows_count + row)
        engine = tl.multiple_of(base + block * stride, ALIGN)
        staged = tl.multiple_of(chunk + blocks * start + index * run, ALIGN)
        run = tl.multiple_of(run, ALIGN)
        if ALIGN >= 8:
            engine_at = engine.to(tl.pointer_type(tl.int64))
            staged_at = staged.to(tl.pointer_type(tl.int64))
            count = run // 8
            if ALIGN >= 16:
                count = tl.multiple_of(count, 2)
        elif ALIGN == 4:
            engine_at = engine.to(tl.pointer_type(tl.int32))
            staged_at = staged.to(tl.pointer_type(tl.int32))
            count = run // 4
        elif ALIGN == 2:
            engine_at = engine.to(tl.pointer_type(tl.int16))
            staged_at = staged.to(tl.pointer_type(tl.int16))
            count = run // 2
        else:
            engine_at = engine.to(tl.pointer_type(tl.int8))
            staged_at = staged.to(tl.pointer_type(tl.int8))
            count = run
        offsets = tl.arange(0, TILE)
        for at in range(0, count, TILE):
            within = at + offsets < count
            if LOAD:
                tl.store(engine_at + at + offsets, tl.load(staged_at + at + offsets, mask=within), mask=within)
            else:
                tl.store(staged_at + at + offsets, tl.load(engine_at + at + offsets, mask=within), mask=within)
        number += tl.num_programs(0)


@triton.jit
def advance(now):
    tl.store(now + 3, tl.load(now + 3) + 1)


class TritonMover:
    """Launches on torch's current stream, and always on the same one for each direction."""

    def __init__(self, layout: Layout) -> None:
        columns = (layout.bases, layout.strides, layout.runs, layout.starts)
        self._segments = torch.stack([torch.from_numpy(column) for column in columns]).to(layout.device)
        self._count = int(layout.runs.size)
        self._align = layout.alignment
        self._tile = max(64, min(TILE_BYTES, 1 << (int(layout.runs.max()) - 1).bit_length()) // min(self._align, 8))
        #: By direction, to the engine or from it: what `move_runs` reads first.
        self._now = {to_engine: torch.zeros(4, dtype=torch.int64, device=layout.device) for to_engine in (True, False)}
        self._graphs: dict[bool, torch.cuda.CUDAGraph] = {}
        if layout.device.type == "cuda":
            with torch.cuda.device(layout.device):
                self._capture()

    @property
    def name(self) -> str:
        return "triton in graphs" if self._graphs else "triton"

    def begin(self, cut: CutJob, upload: Upload, *, to_engine: bool) -> torch.Tensor:
        bounds = np.array([(*piece.rows, *piece.segments) for piece in cut.pieces], np.int64).reshape(-1, 4).T
        bounds[[1, 3]] -= bounds[[0, 2]]  # how many instead of the end
        table = upload(np.concatenate((bounds.ravel(), cut.table.ravel())), None)
        upload(np.array([table.data_ptr(), len(cut.pieces), cut.table.shape[1], 0], np.int64), self._now[to_engine])
        return table

    def move(self, cut: CutJob, piece: Piece, table: torch.Tensor, staging: torch.Tensor, *, to_engine: bool) -> None:
        graph = self._graphs.get(to_engine)
        if graph is not None:
            graph.replay()
        else:
            self._launch(to_engine=to_engine)

    def _launch(self, *, to_engine: bool) -> None:
        now = self._now[to_engine]
        move_runs[(PROGRAMS,)](self._segments, self._count, now, LOAD=to_engine, ALIGN=self._align, TILE=self._tile)
        advance[(1,)](now)

    def _capture(self) -> None:
        nothing = torch.zeros(4, dtype=torch.int64, device=self._segments.device)  # one piece without rows
        graphs = {}
        for to_engine, now in self._now.items():
            now.copy_(torch.tensor([nothing.data_ptr(), 1, 0, 0]))
            self._launch(to_engine=to_engine)  # compiles
            torch.cuda.synchronize(self._segments.device)
            graphs[to_engine] = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graphs[to_engine], capture_error_mode="thread_local"):
                    self._launch(to_engine=to_engine)
            except RuntimeError as error:
                log.info("copies are not launched as graphs: %s", error)
                return
        self._graphs = graphs
