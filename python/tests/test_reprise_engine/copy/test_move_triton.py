"""The Triton kernel in Triton's interpreter, on the host: run with TRITON_INTERPRET=1 where Triton is installed."""

from __future__ import annotations

import contextlib
import itertools
import os

import numpy as np
import pytest
import torch

from reprise_engine.copy.layout import read_layout
from reprise_engine.copy.mover import Mover, Upload
from reprise_engine.copy.pieces import CutJob, Piece
from reprise_engine.plan import LoadJob, SaveJob
from test_reprise_engine import jobs_for_tests as jobs
from test_reprise_engine import layouts
from test_reprise_engine.copy.test_copy_host import BLOCKS, SLOTS, aligned, staged
from test_reprise_engine.layouts import ALL, BLOCK_TOKENS

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the interpreter is not switched on", allow_module_level=True)


@pytest.mark.parametrize("name", ALL)
def test_the_kernel_moves_the_same_bytes_as_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from reprise_engine.copy import move_triton
    from reprise_engine.copy.move_triton import TritonMover

    monkeypatch.setattr(move_triton, "PROGRAMS", 3)  # fewer than runs, so that each moves several
    rng = np.random.default_rng(8)
    caches = ALL[name](BLOCKS)
    layout = read_layout(caches, BLOCKS, BLOCK_TOKENS)
    mover = TritonMover(layout)
    slot = aligned(layout.payload_bytes(4))
    for seed in range(2):
        layouts.fill(caches, seed)
        pool = rng.integers(0, 256, slot * SLOTS, dtype=np.uint8)
        twin = pool.copy()
        save = jobs.random_job(SaveJob, layout, rng, slot, SLOTS)
        staged(layout, save, pool, to_engine=False, place_chunks=2, mover=mover)
        staged(layout, save, twin, to_engine=False, place_chunks=2)
        assert np.array_equal(pool, twin)

        load = jobs.random_job(LoadJob, layout, rng, slot, SLOTS)
        staged(layout, load, pool, to_engine=True, place_chunks=2, mover=mover)
        once = {key: tensor.clone() for key, tensor in caches.items()}
        layouts.fill(caches, seed)
        staged(layout, load, pool, to_engine=True, place_chunks=2)
        assert all(torch.equal(once[key].view(torch.uint8), caches[key].view(torch.uint8)) for key in caches)


@pytest.mark.parametrize("name", ALL)
def test_groups_of_layers_are_moved_one_after_the_other_also_behind_a_job_that_was_left_half_way(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reprise_engine.copy import move_triton
    from reprise_engine.copy.move_triton import TritonMover

    monkeypatch.setattr(move_triton, "PROGRAMS", 3)
    rng = np.random.default_rng(9)
    caches = ALL[name](BLOCKS)
    layout = read_layout(caches, BLOCKS, BLOCK_TOKENS)
    mover = TritonMover(layout)
    slot = aligned(layout.payload_bytes(4))
    segments = int(layout.runs.size)
    spans = list(itertools.pairwise(sorted({0, segments // 3, segments // 2, segments})))
    pool = rng.integers(0, 256, slot * SLOTS, dtype=np.uint8)
    for seed in range(2):
        load = jobs.random_job(LoadJob, layout, rng, slot, SLOTS)
        layouts.fill(caches, seed)
        staged(layout, load, pool, to_engine=True, place_chunks=2)
        expected = {key: tensor.clone() for key, tensor in caches.items()}
        layouts.fill(caches, seed)
        with contextlib.suppress(Refused):
            staged(layout, load, pool, to_engine=True, place_chunks=2, mover=Refusing(mover), spans=spans)
        staged(layout, load, pool, to_engine=True, place_chunks=2, mover=mover, spans=spans)
        assert all(torch.equal(expected[key].view(torch.uint8), caches[key].view(torch.uint8)) for key in caches)


class Refused(Exception):
    pass


class Refusing:
    """Moves one piece and no more."""

    name = "refusing"

    def __init__(self, mover: Mover) -> None:
        self._mover = mover
        self._moved = 0

    def begin(self, cut: CutJob, upload: Upload, *, to_engine: bool) -> torch.Tensor:
        return self._mover.begin(cut, upload, to_engine=to_engine)

    def move(self, cut: CutJob, piece: Piece, table: torch.Tensor, staging: torch.Tensor, *, to_engine: bool) -> None:
        if self._moved > 0:
            raise Refused
        self._moved += 1
        self._mover.move(cut, piece, table, staging, to_engine=to_engine)
