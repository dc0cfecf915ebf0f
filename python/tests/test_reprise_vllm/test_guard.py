"""Faults behind hooks: whose they are, and what follows."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from reprise_vllm import guard
from reprise_vllm.guard import FaultBudget, faults_tolerated, guarded, guarded_by_request


class Connector:
    def __init__(self) -> None:
        self.now = 0.0
        self.faults: dict[str, int] = {}
        self.budget = FaultBudget(lambda: self.now)
        self.switched_off = False
        self.aside: list[str] = []
        self.calls = 0

    def set_aside(self, request: Any) -> None:
        self.aside.append(request.request_id)

    @guarded(lambda self: "fallback")
    def step(self, *, fails: bool = True) -> str:
        return self._called(fails)

    @guarded(lambda self: "fallback", also_while_resting=True)
    def books(self, *, fails: bool = True) -> str:
        return self._called(fails)

    @guarded_by_request(lambda self: "fallback")
    def of_request(self, request: Any, *, fails: bool = True) -> str:
        return self._called(fails)

    @guarded_by_request(lambda self: "fallback", is_last=True)
    def last_of_request(self, request: Any, *, fails: bool = True) -> str:
        return self._called(fails)

    def _called(self, fails: bool) -> str:
        self.calls += 1
        if fails:
            raise RuntimeError("a fault")
        return "answer"


def request(name: str) -> Any:
    return SimpleNamespace(request_id=name)


def test_whatever_raises_in_hooks_of_requests_takes_out_these_requests_and_nothing_else() -> None:
    connector = Connector()
    for i in range(1000):
        assert connector.of_request(request(f"r{i}")) == "fallback"
        assert connector.last_of_request(request(f"r{i}")) == "fallback"
    assert not connector.switched_off
    assert connector.aside == [f"r{i}" for i in range(1000)], "once each, and not at their end"
    assert connector.of_request(request("good"), fails=False) == "answer"


def test_too_many_faults_of_steps_are_a_pause_and_then_it_tries_again() -> None:
    connector = Connector()
    pauses = []
    for _ in range(8):
        for _ in range(faults_tolerated):
            assert not connector.switched_off
            assert connector.step() == "fallback"
        assert connector.switched_off
        calls = connector.calls
        assert connector.step() == connector.of_request(request("r")) == "fallback"
        assert connector.calls == calls, "it rests"
        assert connector.books(fails=False) == connector.last_of_request(request("r"), fails=False) == "answer"
        assert not connector.budget.has_rested()
        pauses.append(connector.budget.pause_seconds)
        connector.now += connector.budget.pause_seconds
        assert connector.budget.has_rested()
        connector.switched_off = False
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    connector.now += 3600
    for _ in range(faults_tolerated):
        connector.step()
    assert connector.budget.pause_seconds == 60, "after a good hour the pause is short again"


def test_faults_that_are_far_apart_never_are_too_many() -> None:
    connector = Connector()
    for _ in range(1000):
        connector.step()
        connector.now += guard.memory_seconds / (faults_tolerated - 1) + 1
    assert not connector.switched_off and connector.faults == {"step": 1000}


def test_a_fault_that_comes_all_the_time_fills_no_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    connector = Connector()
    for i in range(10_000):
        connector.of_request(request(f"r{i}"))
    assert len({id(record) for record in caplog.records}) == 3  # vLLM's logger may hand on twice
    connector.now += 3601
    connector.of_request(request("later"))
    assert len({id(record) for record in caplog.records}) == 4
