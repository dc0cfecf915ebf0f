"""Requests are received and sent once, when all their jobs have ended."""

from __future__ import annotations

from test_reprise_engine.worker.rig import Rig, load, save


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
