"""Loads that are waited for layer by layer."""

from __future__ import annotations

import pytest

from reprise_engine.plan import StepPlan
from test_reprise_engine.worker.rig import Rig, Waits, load


@pytest.mark.parametrize("fault", [None, "left out", "error"])
def test_a_layer_that_was_not_waited_for_costs_the_load_and_ends_the_method(rig: Rig, fault: str | None) -> None:
    slow = rig.mapped().slow()
    slow.by_layers = True
    waits = Waits({"a", "b"})
    slow.next_layers = waits
    assert not rig.worker.waits_by_layer
    rig.worker.begin_step(StepPlan(loads=[load([1, 2])]))
    assert rig.worker.waits_by_layer
    rig.worker.wait_for_layer("a")
    if fault == "error":
        waits.error = RuntimeError("the device is gone")
    if fault != "left out":
        rig.worker.wait_for_layer("b")
    rig.worker.end_step()
    assert not rig.worker.waits_by_layer
    assert rig.worker.take_invalid_blocks() == ({1, 2} if fault else set())
    assert slow.by_layers is (fault is None)
    slow.handles[0].ended_at = 101.0
    assert rig.step() == (None, None, set()), "its blocks are told once"
    assert rig.ended() == ({1: 1}, {1} if fault else set())
