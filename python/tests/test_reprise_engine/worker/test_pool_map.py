"""The pool: mapped by epoch, registered with the device in the background."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reprise_engine.copy.copier import EXTENT_BYTES
from reprise_engine.copy.pool_map import PoolMap
from reprise_engine.plan import PoolRef
from test_reprise_engine import jobs_for_tests as jobs
from test_reprise_engine.worker.rig import SLOT, Rig, load


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


def test_a_pool_that_is_gone_is_a_miss_and_found_again_later(rig: Rig) -> None:
    gone = PoolRef(epoch=7, path=str(rig.folder / "gone"), bytes=SLOT, capacity_bytes=SLOT)
    assert rig.step(pool=gone, loads=[load([1], epoch=7)]) == (None, None, {1})
    assert rig.worker.counters["map_failed"] == 1
    short = replace(rig.pool, epoch=8, bytes=rig.pool.bytes * 2)
    rig.worker._remap_at = 0.0
    rig.step(pool=short)
    assert rig.worker.counters["map_failed"] == 2
    rig.worker._remap_at = 0.0
    rig.mapped()


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
    monkeypatch.setattr("reprise_engine.copy.pool_map.RETRY_SECONDS", 0.0)
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
