"""The worker side as the connector calls it, with the host copier and a real mapped file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jobs_for_tests as jobs
import layouts
from layouts import BLOCK_TOKENS
from reprise_vllm.copier import EXTENT_BYTES, PoolView
from reprise_vllm.layout import LayoutError
from reprise_vllm.plan import LoadJob, PoolRef, SaveJob, StepPlan
from reprise_vllm.pool_map import PoolMap
from reprise_vllm.worker import WorkerSide

BLOCKS = 29
SLOT = 65_536


class Clock:
    time = 100.0

    def __call__(self) -> float:
        return self.time


class Slow:
    """Stands before a copier: its copies end when the test says so."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.facts: dict[str, float | str] = {}
        self.handles: list[Slow.Handle] = []
        self.fences = 0

    def load(self, job: LoadJob, rank: int, pool: PoolView) -> Slow.Handle:
        self.inner.load(job, rank, pool)
        self.handles.append(Slow.Handle())
        return self.handles[-1]

    def save(self, job: SaveJob, rank: int, pool: PoolView) -> Slow.Handle:
        self.inner.save(job, rank, pool)
        self.handles.append(Slow.Handle())
        return self.handles[-1]

    def fence(self) -> None:
        self.fences += 1

    def close(self) -> None:
        pass

    class Handle:  # noqa: D106
        ended_at = 0.0
        error: Exception | None = None

        @property
        def done(self) -> bool:
            if self.error is not None:
                raise self.error
            return self.ended_at != 0.0


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.caches = layouts.flash(BLOCKS)
        self.worker = WorkerSide(0, 1, 0, now=self.clock)
        self.layout = self.worker.register(self.caches, BLOCKS, BLOCK_TOKENS)
        self.pool = jobs.make_pool(folder, SLOT * 8)

    def slow(self) -> Slow:
        slow = Slow(self.worker._copier)
        self.worker._copier = slow
        return slow

    def step(self, **plan: object) -> tuple[set[str] | None, set[str] | None, set[int]]:
        self.worker.begin_step(StepPlan(**plan))  # type: ignore[arg-type]
        sent, received = self.worker.end_step()
        return sent, received, self.worker.take_invalid_blocks()

    def mapped(self) -> Rig:
        self.step(pool=self.pool)
        report = self.worker.take_report()
        assert report is not None
        assert report.ready == {self.pool.epoch: 1}
        return self

    def ended(self) -> tuple[dict[int, int], set[int]]:
        report = self.worker.take_report()
        return ({}, set()) if report is None else (report.done, report.failed)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.worker.close()


def load(blocks: list[int], **more: object) -> LoadJob:
    return jobs.make_job(LoadJob, slots=[0], counts=[len(blocks)], blocks=blocks, **more)  # type: ignore[arg-type]


def save(blocks: list[int], **more: object) -> SaveJob:
    return jobs.make_job(SaveJob, slots=[0], counts=[len(blocks)], blocks=blocks, **more)  # type: ignore[arg-type]


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


def test_a_new_epoch_is_mapped_once_and_old_jobs_fail(rig: Rig) -> None:
    rig.mapped()
    rig.step(pool=rig.pool)
    assert rig.worker.take_report() is None
    second = jobs.make_pool(rig.folder, SLOT * 4, epoch=2)
    assert rig.step(pool=second, loads=[load([1, 2], epoch=1)]) == (None, None, {1, 2})
    report = rig.worker.take_report()
    assert report is not None
    assert (report.ready, report.failed, report.done) == ({2: 1}, {1}, {1: 1})
    assert rig.worker.counters["load_failed_wrong_epoch"] == 1


def test_a_copy_under_way_when_the_epoch_changes_has_failed(rig: Rig) -> None:
    slow = rig.mapped().slow()
    rig.step(loads=[load([1, 2])])
    second = jobs.make_pool(rig.folder, SLOT * 4, epoch=2)
    assert rig.step(pool=second) == (None, None, set())
    slow.handles[0].ended_at = 101.0
    assert rig.step() == (None, None, {1, 2})
    assert rig.worker.counters["load_failed_epoch_ended"] == 1


def test_without_a_pool_loads_are_invalid_in_the_same_step(rig: Rig) -> None:
    assert rig.step(loads=[load([1, 2])], saves=[save([3], job_id=2)]) == (None, None, {1, 2})
    assert rig.ended() == ({1: 1, 2: 1}, {1, 2})


def test_a_pool_that_is_gone_is_a_miss_and_found_again_later(rig: Rig) -> None:
    gone = PoolRef(epoch=7, path=str(rig.folder / "gone"), bytes=SLOT)
    assert rig.step(pool=gone, loads=[load([1], epoch=7)]) == (None, None, {1})
    assert rig.worker.counters["map_failed"] == 1
    short = replace(rig.pool, epoch=8, bytes=rig.pool.bytes * 2)
    rig.worker._remap_at = 0.0
    rig.step(pool=short)
    assert rig.worker.counters["map_failed"] == 2
    rig.worker._remap_at = 0.0
    rig.mapped()


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


def test_a_request_is_received_once_when_all_its_loads_ended(rig: Rig) -> None:
    slow = rig.mapped().slow()
    assert rig.step(loads=[load([1], job_id=1, in_step=False), load([2], job_id=2, in_step=False)]) == (
        None,
        None,
        set(),
    )
    slow.handles[0].ended_at = 1.0
    assert rig.step(finish_loads={"r": [7]}) == (None, None, set())
    slow.handles[1].error = RuntimeError("the device is gone")
    assert rig.step() == (None, {"r"}, {2, 7})
    assert rig.step() == (None, None, set())
    assert rig.ended() == ({1: 1, 2: 1}, {2})


def test_a_request_whose_loads_were_all_refused_is_received_in_the_same_step(rig: Rig) -> None:
    assert rig.step(loads=[load([1, 2], in_step=False)], finish_loads={"r": [5]}) == (None, {"r"}, {1, 2, 5})
    assert rig.step(finish_loads={"s": []}) == (None, {"s"}, set())


def test_a_failed_load_between_steps_is_told_with_its_request(rig: Rig) -> None:
    rig.mapped()
    assert rig.step(loads=[load([1], in_step=False, moved_by=1)]) == (None, None, set())
    assert rig.step() == (None, None, set())
    assert rig.step(finish_loads={"r": []}) == (None, {"r"}, {1})


def test_a_request_loads_again_under_its_old_name(rig: Rig) -> None:
    rig.mapped()
    for job_id in (1, 2):
        plan = dict(loads=[load([1], job_id=job_id, in_step=False)], finish_loads={"r": []})
        assert rig.step(**plan) == (None, {"r"}, set())


def test_a_finished_request_is_sent_once_when_its_saves_ended(rig: Rig) -> None:
    slow = rig.mapped().slow()
    rig.step(saves=[save([1], job_id=1), save([2], job_id=2)])
    assert rig.step(finish_saves={"r": [1, 2], "other": []}) == ({"other"}, None, set())
    slow.handles[0].ended_at = 1.0
    assert rig.step() == (None, None, set())
    slow.handles[1].ended_at = 1.0
    assert rig.step() == ({"r"}, None, set())
    assert rig.step() == (None, None, set())


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


class Registrar:
    def __init__(self, codes: dict[int, int]) -> None:
        self.codes, self.now, self.asked = codes, set[int](), list[int]()

    def enter_thread(self) -> None:
        pass

    def register(self, address: int, size: int) -> int:
        self.asked.append(address)
        code = self.codes.get(len(self.asked) - 1, 0)
        if code == 0:
            self.now.add(address)
        return code

    def unregister(self, address: int) -> int:
        self.now.remove(address)
        return 0


def until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def test_the_pool_is_registered_in_order_and_unregistered_at_close(tmp_path: Path) -> None:
    registrar = Registrar({})
    pool = PoolMap(jobs.make_pool(tmp_path, 3 * EXTENT_BYTES), registrar, lambda _: 1 << 60)
    assert pool.wait_registered(10)
    assert registrar.asked == [pool.address + i * EXTENT_BYTES for i in range(3)]
    pool.close()
    assert registrar.now == set()


def test_registering_stops_when_it_is_refused_and_goes_on_for_what_a_job_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reprise_vllm.pool_map.RETRY_SECONDS", 0.0)
    registrar = Registrar({1: 2})
    pool = PoolMap(jobs.make_pool(tmp_path, 4 * EXTENT_BYTES), registrar, lambda _: 1 << 60)
    until(lambda: len(registrar.asked) == 2)
    assert not pool.is_registered(np.array([3 * EXTENT_BYTES + 5]))
    until(lambda: pool.registered.tolist() == [True, False, False, True])
    assert pool.is_registered(np.array([0, 3 * EXTENT_BYTES]))
    pool.close()


def test_holes_get_no_pages_when_the_memory_is_nearly_full(tmp_path: Path) -> None:
    registrar = Registrar({})
    ref = jobs.make_pool(tmp_path, 2 * EXTENT_BYTES)
    with Path(ref.path).open("r+b") as file:
        file.write(b"x" * EXTENT_BYTES)
    pool = PoolMap(ref, registrar, lambda _: 4096)
    until(lambda: pool.registered[0])
    until(lambda: 1 in pool._refused)
    assert len(registrar.asked) == 1
    pool.close()
