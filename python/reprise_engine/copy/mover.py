"""What moves blocks into staging and out of it, for the CUDA copier. Two do: move_triton.py and move_torch.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from reprise_engine.copy.pieces import CutJob, Int64s, Piece

#: Copies numbers to the device, on the current stream: into a tensor of theirs, or into the one given.
Upload = Callable[[Int64s, torch.Tensor | None], torch.Tensor]


class Mover(Protocol):
    """Blocks ⇄ staging, on the current stream. Each direction has one job at a time."""

    @property
    def name(self) -> str: ...

    def begin(self, cut: CutJob, upload: Upload, *, to_engine: bool) -> torch.Tensor:
        """What the moves of this job need on the device; kept until all are enqueued."""

    def move(self, cut: CutJob, piece: Piece, table: torch.Tensor, staging: torch.Tensor, *, to_engine: bool) -> None:
        """The job's next piece, into or out of its place `staging`. `table`: from `begin`."""
