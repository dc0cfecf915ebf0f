"""The host copier and the cutting of jobs into pieces, each against a plain twin."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from reprise_engine.copy.copier import EXTENT_BYTES, JobError, check_job
from reprise_engine.copy.copy_host import HostCopier
from reprise_engine.copy.layout import Layout, read_layout
from reprise_engine.copy.move_torch import TorchMover
from reprise_engine.copy.mover import Mover
from reprise_engine.copy.pieces import Ring, cut_job, page_copies
from reprise_engine.copy.pool_map import PoolMap
from reprise_engine.plan import LoadJob, SaveJob, TransferJob
from test_reprise_engine import jobs_for_tests as jobs
from test_reprise_engine import layouts
from test_reprise_engine.layouts import ALL, BLOCK_TOKENS

BLOCKS = 29
SLOTS = 5


def aligned(size: int) -> int:
    return -(-size // 4096) * 4096


def plain_save(caches: layouts.Caches, job: TransferJob, pool: np.ndarray, layout: Layout) -> None:
    """The plain twin of a save: block by block, run by run."""
    row = 0
    for chunk, count in enumerate(job.chunk_blocks.tolist()):
        for index in range(int(job.take_blocks[chunk])):
            at = int(job.slot_offsets[0, chunk])
            for run in layouts.plain_block(caches, BLOCKS, int(job.block_ids[row])):
                begin = at + (int(job.skip_blocks[chunk]) + index) * len(run)
                pool[begin : begin + len(run)] = np.frombuffer(run, dtype=np.uint8)
                at += count * len(run)
            row += 1


@pytest.mark.parametrize("name", ALL)
def test_a_save_writes_what_the_plain_twin_writes_and_a_load_brings_it_back(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    caches = ALL[name](BLOCKS)
    layout = read_layout(caches, BLOCKS, BLOCK_TOKENS)
    slot = aligned(layout.payload_bytes(4))
    pool = PoolMap(jobs.make_pool(tmp_path, slot * SLOTS))
    copier = HostCopier(layout)
    for seed in range(3):
        layouts.fill(caches, seed)
        pool.view[:] = rng.integers(0, 256, pool.bytes, dtype=np.uint8)
        save = jobs.random_job(SaveJob, layout, rng, slot, SLOTS)
        expected = pool.view.copy()
        plain_save(caches, save, expected, layout)
        assert copier.save(save, 0, pool).done
        assert np.array_equal(pool.view, expected)

        before = {key: tensor.clone() for key, tensor in caches.items()}
        moved = rng.permutation(BLOCKS)[: save.block_ids.size]
        load = jobs.make_job(
            LoadJob,
            slots=save.slot_offsets[0].tolist(),
            counts=save.chunk_blocks.tolist(),
            skips=save.skip_blocks.tolist(),
            takes=save.take_blocks.tolist(),
            blocks=moved.tolist(),
        )
        wanted = [layouts.plain_block(caches, BLOCKS, block) for block in save.block_ids.tolist()]
        untouched = sorted(set(range(BLOCKS)) - set(moved.tolist()))[:2]
        kept = [layouts.plain_block(caches, BLOCKS, block) for block in untouched]
        copier.load(load, 0, pool)
        assert [layouts.plain_block(caches, BLOCKS, block) for block in moved.tolist()] == wanted
        assert [layouts.plain_block(caches, BLOCKS, block) for block in untouched] == kept
        for key, tensor in caches.items():
            tensor.copy_(before[key])
    pool.close()


def staged(
    layout: Layout,
    job: TransferJob,
    pool: np.ndarray,
    *,
    to_engine: bool,
    place_chunks: int,
    mover: Mover | None = None,
    spans: list[tuple[int, int]] | None = None,
) -> int:
    """The GPU copier's path, on the host: cut, link copies and a mover, piece after piece."""
    place = layout.payload_bytes(4) * place_chunks
    memory = torch.empty(2 * place + 16, dtype=torch.uint8)
    memory = memory[-memory.data_ptr() % 16 :][: 2 * place]
    cut = cut_job(job, 0, layout, Ring(memory.data_ptr(), 2, place, turn=1), spans)
    mover = mover or TorchMover(layout)
    table = mover.begin(cut, _upload, to_engine=to_engine)
    for number, piece in enumerate(cut.pieces):
        at = (1 + number) % 2 * place
        part = slice(*piece.copies)
        columns = (cut.pool_offsets[part], cut.staging[part] - memory.data_ptr(), cut.sizes[part])
        links = list(zip(*(column.tolist() for column in columns), strict=True))
        assert all(at <= ring and ring + size <= at + place for _, ring, size in links)
        if to_engine or piece.partial:
            for slot, ring, size in links:
                memory[ring : ring + size] = torch.from_numpy(pool[slot : slot + size])
        mover.move(cut, piece, table, memory[at : at + place], to_engine=to_engine)
        if not to_engine:
            for slot, ring, size in links:
                pool[slot : slot + size] = memory[ring : ring + size].numpy()
    return len(cut.pieces)


def _upload(numbers: np.ndarray, target: torch.Tensor | None) -> torch.Tensor:
    made = torch.from_numpy(numbers.copy())
    return made if target is None else target.copy_(made)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("place_chunks", [1, 3])
def test_pieces_through_staging_move_the_same_bytes_as_the_host_copier(
    name: str, place_chunks: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(6)
    caches = ALL[name](BLOCKS)
    layout = read_layout(caches, BLOCKS, BLOCK_TOKENS)
    slot = aligned(layout.payload_bytes(4))
    pool = PoolMap(jobs.make_pool(tmp_path, slot * SLOTS))
    copier = HostCopier(layout)
    for seed in range(6):
        layouts.fill(caches, seed)
        pool.view[:] = rng.integers(0, 256, pool.bytes, dtype=np.uint8)
        save = jobs.random_job(SaveJob, layout, rng, slot, SLOTS)
        twin = pool.view.copy()
        staged(layout, save, twin, to_engine=False, place_chunks=place_chunks)
        copier.save(save, 0, pool)
        assert np.array_equal(pool.view, twin)

        load = jobs.random_job(LoadJob, layout, rng, slot, SLOTS)
        borders = sorted({0, *rng.integers(0, layout.runs.size, 2).tolist(), int(layout.runs.size)})
        spans = list(itertools.pairwise(borders))
        staged(layout, load, pool.view, to_engine=True, place_chunks=place_chunks, spans=spans)
        once = {key: tensor.clone() for key, tensor in caches.items()}
        layouts.fill(caches, seed)
        copier.load(load, 0, pool)
        assert all(torch.equal(once[key].view(torch.uint8), caches[key].view(torch.uint8)) for key in caches)
    pool.close()


def test_neighbouring_slots_are_one_copy_but_never_across_an_extent() -> None:
    layout = read_layout({"a": torch.zeros(64, 16, 256, dtype=torch.float32)}, 64, 16)
    payload = layout.payload_bytes(4)
    assert payload == 65_536
    slots = [0, payload, 2 * payload, EXTENT_BYTES - payload, EXTENT_BYTES, EXTENT_BYTES + payload]
    job = jobs.make_job(LoadJob, slots=slots, counts=[4] * 6, blocks=list(range(24)))
    cut = cut_job(job, 0, layout, Ring(1 << 20, 2, 6 * payload, turn=0))
    assert cut.pool_offsets.tolist() == [0, EXTENT_BYTES - payload, EXTENT_BYTES]
    assert cut.sizes.tolist() == [3 * payload, payload, 2 * payload]
    assert [piece.rows for piece in cut.pieces] == [(0, 24)]
    halves = cut_job(job, 0, layout, Ring(1 << 20, 2, 2 * payload + 100, turn=0))
    assert [piece.rows for piece in halves.pieces] == [(0, 8), (8, 16), (16, 24)]
    assert halves.sizes.tolist() == [2 * payload, payload, payload, 2 * payload]


def test_pages_name_the_same_addresses_as_pieces_move() -> None:
    rng = np.random.default_rng(7)
    caches = layouts.flash(BLOCKS)
    layout = read_layout(caches, BLOCKS, BLOCK_TOKENS)
    slot = aligned(layout.payload_bytes(4))
    layouts.fill(caches, 1)
    save = jobs.random_job(SaveJob, layout, rng, slot, SLOTS)
    pool = np.zeros(slot * SLOTS, dtype=np.uint8)
    expected = pool.copy()
    plain_save(caches, save, expected, layout)
    tensors = list(caches.values())
    in_pool, in_engine, sizes = page_copies(save, 0, layout, 0)
    assert in_pool.size == save.block_ids.size * layout.runs.size
    for at, address, size in zip(in_pool.tolist(), in_engine.tolist(), sizes.tolist(), strict=True):
        owner = next(t for t in tensors if t.data_ptr() <= address < t.data_ptr() + t.numel() * t.element_size())
        flat = owner.view(torch.uint8).view(-1).numpy()
        begin = address - owner.data_ptr()
        pool[at : at + size] = flat[begin : begin + size]
    assert np.array_equal(pool, expected)


def test_an_empty_job_and_a_payload_larger_than_staging() -> None:
    layout = read_layout(layouts.flash(BLOCKS), BLOCKS, BLOCK_TOKENS)
    ring = Ring(0, 2, layout.payload_bytes(4), turn=0)
    empty = jobs.make_job(SaveJob, slots=[], counts=[], blocks=[])
    assert cut_job(empty, 0, layout, ring).pieces == []
    none_taken = jobs.make_job(SaveJob, slots=[0], counts=[4], takes=[0], blocks=[])
    assert cut_job(none_taken, 0, layout, ring).pieces == []
    with pytest.raises(JobError, match="staging"):
        cut_job(jobs.make_job(SaveJob, slots=[0], counts=[5], blocks=list(range(5))), 0, layout, ring)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(slots=[-4096]),
        dict(slots=[1 << 30]),
        dict(blocks=[0, 1, 2, BLOCKS]),
        dict(blocks=[-1, 1, 2, 3]),
        dict(blocks=[1, 2, 3]),
        dict(skips=[1]),
        dict(skips=[-1], takes=[4]),
        dict(slots=[EXTENT_BYTES - 4096]),
        dict(ranks=0),
    ],
)
def test_a_job_that_would_touch_other_memory_is_refused(wrong: dict[str, list[int]]) -> None:
    layout = read_layout(layouts.flash(BLOCKS), BLOCKS, BLOCK_TOKENS)
    given = dict(slots=[0], counts=[4], blocks=[0, 1, 2, 3], skips=[0], takes=[4]) | wrong
    job = jobs.make_job(LoadJob, **given)  # type: ignore[arg-type]
    with pytest.raises(JobError):
        check_job(job, 0, layout, 2 * EXTENT_BYTES)
