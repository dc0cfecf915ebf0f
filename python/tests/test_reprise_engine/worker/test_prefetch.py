"""Loads that begin before their step."""

from __future__ import annotations

import threading

from reprise_engine.plan import StepPlan
from reprise_engine.same_process import introduce, worker_of
from test_reprise_engine import jobs_for_tests as jobs
from test_reprise_engine.worker.rig import SLOT, Rig, Waits, load


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


def test_a_planned_load_begins_before_its_step_which_only_waits_for_it(rig: Rig) -> None:
    slow = rig.mapped().slow()
    plan = StepPlan(loads=[load([1], job_id=4), load([2], job_id=5, in_step=False)])
    rig.worker.prefetch(plan.loads[0])
    rig.worker.begin_loads(plan)
    assert len(slow.ahead) == 2
    assert slow.joined == []
    slow.ahead[0].layers = Waits({"a"})
    rig.worker.end_step()  # of the step before, whose layers wait for nothing
    assert rig.worker.take_invalid_blocks() == set()
    rig.worker.begin_step(plan)
    assert slow.joined == slow.ahead[:1], "nothing waits for a load between steps"
    assert len(slow.handles) == 2, "no load begins twice"
    assert rig.worker.waits_by_layer
    rig.worker.wait_for_layer("a")
    slow.handles[0].ended_at = slow.handles[1].ended_at = 101.0
    rig.worker.end_step()
    assert rig.ended() == ({4: 1, 5: 1}, set())
    rig.worker.forget(4)
    assert slow.forgotten == 0, "the load has taken it up"


def test_no_load_begins_before_a_fence_or_of_another_pool_or_in_another_thread(rig: Rig) -> None:
    slow = rig.slow()
    rig.worker.begin_loads(StepPlan(loads=[load([1])]))
    rig.mapped()
    rig.worker.begin_loads(StepPlan(loads=[load([1])], fence_saves=True))
    rig.worker.begin_loads(StepPlan(loads=[load([1], epoch=2)]))
    thread = threading.Thread(target=lambda: rig.worker.begin_loads(StepPlan(loads=[load([1])])))
    thread.start()
    thread.join()
    assert slow.ahead == []


def test_a_load_that_was_begun_and_cannot_be_used_has_failed(rig: Rig) -> None:
    slow = rig.mapped().slow()
    late, broken = load([1], job_id=4, valid_until=110.0), load([2], job_id=5)
    rig.worker.begin_loads(StepPlan(loads=[late, broken]))
    slow.ahead[1].error = RuntimeError("an illegal address")
    rig.clock.time = 111.0
    assert rig.step(loads=[late, broken]) == (None, None, {2}), "the first may yet have ended in time"
    slow.ahead[0].ended_at = 111.0
    assert rig.step() == (None, None, {1})
    assert rig.ended() == ({4: 1, 5: 1}, {4, 5})


def test_a_pool_stays_mapped_while_a_load_of_it_that_no_step_took_is_under_way(rig: Rig) -> None:
    slow = rig.mapped().slow()
    rig.worker.begin_loads(StepPlan(loads=[load([1], job_id=4)]))
    old = rig.worker._pool
    assert old is not None
    rig.step(pool=jobs.make_pool(rig.folder, SLOT * 4, epoch=2))
    assert old.view.size > 0
    slow.ahead[0].ended_at = 101.0
    rig.step()
    assert old.view.size == 0


def test_the_two_sides_of_an_engine_meet_while_the_worker_lives(rig: Rig) -> None:
    assert worker_of("an engine", "a.sock") is None
    introduce("an engine", "a.sock", rig.worker)
    assert worker_of("an engine", "a.sock") is rig.worker
    assert worker_of("another", "a.sock") is None
    assert worker_of("an engine", "another cache's.sock") is None, "its pool holds other bytes at the same places"
    rig.worker.close()
    rig.worker.prefetch(load([1]))
    rig.worker.forget(1)
