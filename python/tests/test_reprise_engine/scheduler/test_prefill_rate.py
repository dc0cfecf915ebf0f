"""The measured cost of a prompt token, with engines that plan ahead, idle, and lose requests."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from reprise_engine.scheduler.prefill_rate import PrefillRate
from test_reprise_engine.scheduler.simulated_engine import Request

TRUE_COST = 0.05


@dataclass
class Clock:
    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds

    def compute(self, tokens: int) -> None:
        self.seconds += tokens * TRUE_COST / 1000


def request(name: str = "r") -> Request:
    return Request(name, [1] * 10)


def answer(*requests: Request) -> None:
    for each in requests:
        each.output.append(1)


def test_a_prompt_that_is_computed_in_pieces_is_measured_as_a_whole() -> None:
    clock = Clock()
    rate = PrefillRate(clock)
    asked = request()
    for tokens, ending in ((8192, []), (8192, []), (1000, [asked])):
        rate.look()
        rate.planned(tokens, ending, loads=False)
        clock.compute(tokens)
    answer(asked)
    rate.look()
    assert rate.is_measured
    assert rate.ms_per_token == pytest.approx(TRUE_COST)


def test_time_in_which_the_engine_has_nothing_to_do_does_not_count() -> None:
    clock = Clock()
    rate = PrefillRate(clock)
    for i in range(20):
        asked = request(f"r{i}")
        rate.planned(4000, [asked], loads=False)
        clock.compute(4000)
        answer(asked)
        rate.look()
        clock.seconds += 60
        rate.look()
    assert rate.ms_per_token == pytest.approx(TRUE_COST)


def test_steps_that_are_planned_while_others_run_are_each_measured_once() -> None:
    clock = Clock()
    rate = PrefillRate(clock)
    before = request("before")
    rate.planned(2000, [before], loads=False)
    for i in range(20):
        asked = request(f"r{i}")
        rate.planned(2000, [asked], loads=False)  # the one before it is under way
        clock.compute(2000)
        answer(before)
        rate.look()
        before = asked
    assert rate.ms_per_token == pytest.approx(TRUE_COST)


def test_small_steps_tell_only_what_a_token_costs_at_most() -> None:
    clock = Clock()
    rate = PrefillRate(clock)

    def step(tokens: int, seconds: float) -> None:
        asked = request()
        rate.planned(tokens, [asked], loads=False)
        clock.seconds += seconds
        answer(asked)
        rate.look()

    step(10, 0.01)
    assert rate.ms_per_token == pytest.approx(1.0)
    assert not rate.is_measured
    step(20, 0.1)
    assert rate.ms_per_token == pytest.approx(1.0)
    step(1000, 0.05)
    assert rate.ms_per_token == pytest.approx(0.05)
    assert rate.is_measured
    for _ in range(100):
        step(10, 0.01)
    assert rate.ms_per_token == pytest.approx(0.05)
    for _ in range(10):
        step(1000, 0.2)
    assert rate.ms_per_token == pytest.approx(0.2, rel=0.1)


def test_nothing_is_learned_from_steps_that_wait_for_copies_or_lose_requests() -> None:
    clock = Clock()
    rate = PrefillRate(clock)
    loading, lost, again, good = request("loading"), request("lost"), request("again"), request("good")

    rate.planned(1000, [loading], loads=True)
    clock.seconds += 10
    answer(loading)
    rate.look()

    rate.planned(1000, [lost], loads=False)
    rate.gone(lost)
    clock.seconds += 10

    answer(again)
    rate.planned(1000, [again], loads=False)  # preempted after its first answer: its end cannot be seen
    clock.seconds += 10
    rate.look()
    assert rate.ms_per_token is None

    rate.planned(1000, [good], loads=False)
    clock.compute(1000)
    answer(good)
    rate.look()
    assert rate.ms_per_token is None, "the stretch began with what nobody saw end"

    good = request("next")
    rate.planned(1000, [good], loads=False)
    clock.compute(1000)
    answer(good)
    rate.look()
    assert rate.ms_per_token == pytest.approx(TRUE_COST)
