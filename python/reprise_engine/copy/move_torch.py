"""Gather and scatter with torch's own indexing, for where Triton is missing: one call per segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from reprise_engine.copy.layout import Layout
    from reprise_engine.copy.mover import Upload
    from reprise_engine.copy.pieces import CutJob, Piece


class TorchMover:
    """Works on torch's current stream, on any device."""

    name = "torch"

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._segments = [
            _bytes_of(owner).as_strided(
                (layout.num_blocks, int(run)), (int(stride), 1), int(base) - owner.untyped_storage().data_ptr()
            )
            for owner, base, stride, run in zip(layout.owners, layout.bases, layout.strides, layout.runs, strict=True)
        ]

    def begin(self, cut: CutJob, upload: Upload, *, to_engine: bool) -> torch.Tensor:
        return upload(cut.table, None)

    def move(self, cut: CutJob, piece: Piece, rows: torch.Tensor, staging: torch.Tensor, *, to_engine: bool) -> None:
        begin, end = piece.rows
        blocks = rows[0, begin:end]
        index = rows[3, begin:end]
        group = slice(*piece.segments)
        starts, runs = self._layout.starts[group], self._layout.runs[group]
        # All chunks of a piece are of one size, so their addresses in staging tell their number.
        payload = piece.chunk_blocks * int(runs.sum())
        first = piece.chunk_blocks * int(starts[0])
        chunk = (rows[1, begin:end] + first - staging.data_ptr()) // payload
        for segment, start, run in zip(self._segments[group], starts, runs, strict=True):
            part = staging.as_strided(
                (piece.chunks, piece.chunk_blocks, int(run)),
                (payload, int(run), 1),
                staging.storage_offset() + piece.chunk_blocks * int(start) - first,
            )
            if to_engine:
                segment.index_copy_(0, blocks, part[chunk, index])
            else:
                part.index_put_((chunk, index), segment.index_select(0, blocks))


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
