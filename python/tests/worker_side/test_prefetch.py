"""Loads that begin before their step."""

from __future__ import annotations

import threading

import jobs_for_tests as jobs
from reprise_vllm.same_process import introduce, worker_of
from worker_side.rig import SLOT, Rig, load


def test_a_prefetch_waits_for_the_first_step_and_the_right_pool_and_thread(rig: Rig) -> None:
    slow = rig.slow()
    rig.worker.prefetch(load([1]))
    rig.mapped()
    rig.worker.prefetch(load([1], epoch=2))
    rig.worker.prefetch(load([1], valid_until=99.0))
    thread = threading.Thread(target=lambda: rig.worker.prefetch(load([1])))
    thread.start()
    thread.join()
    assert slow.prefetched == []
    rig.worker.prefetch(load([1], job_id=4))
    assert len(slow.prefetched) == 1
    rig.worker.forget(5)
    assert slow.forgotten == 0
    rig.worker.forget(4)
    assert slow.forgotten == 1


def test_a_pool_stays_mapped_until_what_was_prefetched_from_it_has_come(rig: Rig) -> None:
    slow = rig.mapped().slow()
    rig.worker.prefetch(load([1], job_id=4))
    old = rig.worker._pool
    assert old is not None
    rig.step(pool=jobs.make_pool(rig.folder, SLOT * 4, epoch=2))
    assert slow.forgotten == 1, "a load of the former epoch will not come"
    rig.step()
    assert old.view.size > 0
    slow.prefetched[0].ended_at = 101.0
    rig.step()
    assert old.view.size == 0


def test_a_refused_load_forgets_what_was_prefetched_for_it(rig: Rig) -> None:
    slow = rig.mapped().slow()
    rig.worker.prefetch(load([1], job_id=4, valid_until=110.0))
    rig.clock.time = 111.0
    assert rig.step(loads=[load([1], job_id=4, valid_until=110.0)]) == (None, None, {1})
    assert slow.forgotten == 1


def test_the_two_sides_of_an_engine_meet_while_the_worker_lives(rig: Rig) -> None:
    assert worker_of("an engine") is None
    introduce("an engine", rig.worker)
    assert worker_of("an engine") is rig.worker
    assert worker_of("another") is None
    rig.worker.close()
    rig.worker.prefetch(load([1]))
    rig.worker.forget(1)
