"""The gather and scatter kernel: runs of engine blocks ⇄ payloads in staging, all blocks of a piece at once.

One program moves one run. It reads where from two tables: the segments' (layout.py) and the job's rows (pieces.py).
Imported only where Triton is there.
"""

# Triton has no annotations, and is not installed everywhere; a kernel's arguments are Triton's, not Python's.
# mypy: disable-error-code="misc, untyped-decorator, no-untyped-call, no-untyped-def, import-not-found, import-untyped"
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from reprise_vllm.layout import Layout
    from reprise_vllm.pieces import CutJob, Piece

#: Bytes that a program moves at once; more only costs registers.
TILE_BYTES = 8192


@triton.jit(do_not_specialize=["segments_count", "rows_count", "first"])
def move_runs(
    segments,
    segments_count,
    rows,
    rows_count,
    first,
    LOAD: tl.constexpr,
    ALIGN: tl.constexpr,
    TILE: tl.constexpr,
):
    row = first + tl.program_id(0)
    segment = tl.program_id(1)
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
    lane = tl.arange(0, TILE)
    for at in range(0, count, TILE):
        within = at + lane < count
        if LOAD:
            tl.store(engine_at + at + lane, tl.load(staged_at + at + lane, mask=within), mask=within)
        else:
            tl.store(staged_at + at + lane, tl.load(engine_at + at + lane, mask=within), mask=within)


class TritonMover:
    """Launches on torch's current stream."""

    name = "triton"

    def __init__(self, layout: Layout) -> None:
        columns = (layout.bases, layout.strides, layout.runs, layout.starts)
        self._segments = torch.stack([torch.from_numpy(column) for column in columns]).to(layout.device)
        self._count = int(layout.runs.size)
        self._align = layout.alignment
        self._tile = max(64, min(TILE_BYTES, 1 << (int(layout.runs.max()) - 1).bit_length()) // min(self._align, 8))

    def move(self, cut: CutJob, piece: Piece, rows: torch.Tensor, staging: torch.Tensor, *, to_engine: bool) -> None:
        """`rows` is the job's table on the device, `staging` the place of the ring that the table's addresses name."""
        begin, end = piece.rows
        move_runs[(end - begin, self._count)](
            self._segments,
            self._count,
            rows,
            rows.shape[1],
            begin,
            LOAD=to_engine,
            ALIGN=self._align,
            TILE=self._tile,
        )
