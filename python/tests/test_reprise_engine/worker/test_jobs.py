"""What becomes of the jobs of a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reprise_engine.copy.layout import LayoutError
from reprise_engine.copy.pool_map import PoolMap
from reprise_engine.plan import LoadJob, SaveJob, StepPlan
from reprise_engine.worker.worker import WorkerSide
from test_reprise_engine import jobs_for_tests as jobs
from test_reprise_engine import layouts
from test_reprise_engine.layouts import BLOCK_TOKENS
from test_reprise_engine.worker.rig import BLOCKS, SLOT, Rig, load, save


def test_what_was_saved_is_loaded_into_other_blocks(rig: Rig) -> None:
    rig.mapped()
    layouts.fill(rig.caches, 1)
    wanted = [layouts.plain_block(rig.caches, BLOCKS, block) for block in (3, 4, 5)]
    assert rig.step(saves=[save([3, 4, 5], job_id=1)]) == (None, None, set())
    layouts.fill(rig.caches, 2)
    assert rig.step(loads=[load([9, 7, 8], job_id=2)]) == (None, None, set())
    assert [layouts.plain_block(rig.caches, BLOCKS, block) for block in (9, 7, 8)] == wanted
    assert rig.ended() == ({1: 1, 2: 1}, set())
    assert rig.worker.take_report() is None
    assert rig.worker.counters["load_bytes"] == rig.layout.payload_bytes(3)


def test_without_a_pool_loads_are_invalid_in_the_same_step(rig: Rig) -> None:
    assert rig.step(loads=[load([1, 2])], saves=[save([3], job_id=2)]) == (None, None, {1, 2})
    assert rig.ended() == ({1: 1, 2: 1}, {1, 2})


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"valid_until": 99.0}, "expired_before_start"),
        ({"moved_by": 16}, "moved"),
        ({"epoch": 3}, "wrong_epoch"),
    ],
)
def test_a_job_that_must_not_run_leaves_the_blocks_alone(rig: Rig, more: dict[str, object], reason: str) -> None:
    rig.mapped()
    layouts.fill(rig.caches, 1)
    before = [layouts.plain_block(rig.caches, BLOCKS, block) for block in range(BLOCKS)]
    assert rig.step(loads=[load([1, 2], **more)]) == (None, None, {1, 2})
    assert rig.worker.counters[f"load_failed_{reason}"] == 1
    assert [layouts.plain_block(rig.caches, BLOCKS, block) for block in range(BLOCKS)] == before
    assert rig.ended() == ({1: 1}, {1})


def test_a_malformed_job_fails_and_its_own_blocks_are_invalid(rig: Rig) -> None:
    rig.mapped()
    bad = jobs.make_job(LoadJob, slots=[SLOT * 8], counts=[2], blocks=[1, 2])
    assert rig.step(loads=[bad]) == (None, None, {1, 2})
    assert rig.worker.counters["load_failed_malformed"] == 1


def test_a_load_that_ends_late_is_invalid_and_a_timely_one_seen_late_is_not(rig: Rig) -> None:
    slow = rig.mapped().slow()
    rig.step(loads=[load([1], job_id=1, valid_until=110.0), load([2], job_id=2, valid_until=110.0)])
    slow.handles[0].ended_at, slow.handles[1].ended_at = 110.5, 109.5
    rig.clock.time = 500.0
    assert rig.step() == (None, None, {1})
    assert rig.ended() == ({1: 1, 2: 1}, {1})


def test_a_save_that_ends_late_is_not_committed(rig: Rig) -> None:
    slow = rig.mapped().slow()
    rig.step(saves=[save([1], valid_until=110.0)])
    slow.handles[0].ended_at = 111.0
    assert rig.step() == (None, None, set())
    assert rig.ended() == ({1: 1}, {1})


def test_the_fence_comes_before_the_forward_pass(rig: Rig) -> None:
    slow = rig.slow()
    rig.worker.before_forward(StepPlan(fence_saves=True))
    assert slow.fences == 1
    rig.worker.before_forward(StepPlan())
    assert slow.fences == 1


def test_random_jobs_through_the_worker_round_trip(rig: Rig) -> None:
    rig.mapped()
    rng = np.random.default_rng(3)
    for seed in range(10):
        layouts.fill(rig.caches, seed)
        job = jobs.random_job(SaveJob, rig.layout, rng, SLOT, 8)
        before = {key: tensor.clone() for key, tensor in rig.caches.items()}
        rig.step(saves=[job])
        for block in job.block_ids.tolist():
            for tensor in rig.caches.values():
                tensor[:, block] = 0
        back = jobs.make_job(
            LoadJob,
            slots=job.slot_offsets[0].tolist(),
            counts=job.chunk_blocks.tolist(),
            skips=job.skip_blocks.tolist(),
            takes=job.take_blocks.tolist(),
            blocks=job.block_ids.tolist(),
        )
        assert rig.step(loads=[back])[2] == set()
        assert all(torch.equal(before[key].view(torch.uint8), rig.caches[key].view(torch.uint8)) for key in before)


def test_each_rank_moves_its_own_payload(tmp_path: Path) -> None:
    rigs = [Rig(tmp_path), Rig(tmp_path)]
    job = save([1])
    job.slot_offsets = np.array([[0], [SLOT]], dtype=np.int64)
    for rank, rig in enumerate(rigs):
        rig.worker.rank = rank
        layouts.fill(rig.caches, rank)
        if rank == 1:
            rig.pool = rigs[0].pool
        else:
            rig.pool = jobs.make_pool(tmp_path, SLOT * 8)
        rig.mapped().step(saves=[job])
    view = PoolMap(rigs[0].pool)
    for rank, rig in enumerate(rigs):
        payload = layouts.plain_payload(rig.caches, BLOCKS, [1])
        assert np.array_equal(view.view[rank * SLOT : rank * SLOT + payload.size], payload)
        rig.worker.close()
    view.close()


def test_a_cache_that_is_not_understood_is_said_at_once_and_jobs_are_refused(tmp_path: Path) -> None:
    worker = WorkerSide(0, 1, 0)
    with pytest.raises(LayoutError):
        worker.register({"a": torch.zeros(5, 6)}, BLOCKS, BLOCK_TOKENS)
    worker.begin_step(StepPlan(pool=jobs.make_pool(tmp_path, SLOT), loads=[load([1])], finish_loads={"q": []}))
    assert worker.end_step() == (None, {"q"})
    assert worker.take_invalid_blocks() == {1}
    worker.close()
