"""Which requests go to the cache, and as whose texts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from reprise_vllm.engine_guest import EngineGuest
from reprise_vllm.generations import generation_of
from reprise_vllm.options import Options
from reprise_vllm.scheduler_side import SchedulerSide
from reprise_vllm.tracked_request import Root


class AskedSide:
    """In place of the scheduler side: everything is stored."""

    def __init__(self) -> None:
        self.asked: list[tuple[Root, bool, bool]] = []

    def match(self, request: Any, computed: int, *, root: Root, may_read: bool, may_save: bool) -> tuple[int, bool]:
        self.asked.append((root, may_read, may_save))
        return 64, False

    def arrived(self, request: Any, *, root: Root, may_read: bool, may_save: bool) -> None:
        self.asked.append((root, may_read, may_save))


def request(**other: Any) -> Any:
    plain: dict[str, Any] = {
        "lora_request": None,
        "mm_features": [],
        "prompt_embeds": None,
        "pooling_params": None,
        "kv_transfer_params": None,
        "skip_reading_prefix_cache": False,
        "cache_salt": None,
    }
    return SimpleNamespace(**{**plain, **other})


@pytest.fixture
def guest() -> EngineGuest:
    made = EngineGuest(SimpleNamespace(), None, Options(), generation_of("0.29.0")[0])
    made.side = cast(SchedulerSide, AskedSide())
    return made


def asked(guest: EngineGuest) -> list[tuple[Root, bool, bool]]:
    return cast(AskedSide, guest.side).asked


@pytest.mark.parametrize(
    "other", [{"mm_features": ["an image"]}, {"prompt_embeds": object()}, {"pooling_params": object()}]
)
def test_what_tokens_alone_do_not_tell_goes_without_the_cache(guest: EngineGuest, other: dict[str, Any]) -> None:
    guest.arrived(request(**other))
    assert guest.match(request(**other), 0) == (0, False)
    assert asked(guest) == [] and guest.counters.all()["requests_skipped"] == 1


def test_the_salt_is_part_of_the_root_and_so_is_the_adapter(guest: EngineGuest, monkeypatch: Any) -> None:
    monkeypatch.setattr(guest._adapters, "identity", lambda lora: "" if lora is None else f"digest of {lora}")
    monkeypatch.setattr(guest._adapters, "is_only_one", lambda lora: True)
    for other in ({}, {"cache_salt": "a"}, {"cache_salt": "b"}, {"cache_salt": "a", "lora_request": "x"}):
        assert guest.match(request(**other), 0) == (64, False)
    roots = [root for root, _, _ in asked(guest)]
    assert roots == [Root("", ""), Root("a", ""), Root("b", ""), Root("a", "digest of x")]


def test_an_adapter_that_is_not_known_goes_without_the_cache(guest: EngineGuest, monkeypatch: Any) -> None:
    monkeypatch.setattr(guest._adapters, "identity", lambda lora: None)
    assert guest.match(request(lora_request="x"), 0) == (0, False)
    assert asked(guest) == []


def test_a_request_says_whether_it_reads_and_saves(guest: EngineGuest) -> None:
    for wishes in (None, {"reprise": {"read": False}}, {"reprise": {"save": False}}, {"another's": 1}):
        guest.arrived(request(kv_transfer_params=wishes))
    guest.arrived(request(skip_reading_prefix_cache=True))
    may = [(reads, saves) for _, reads, saves in asked(guest)]
    assert may == [(True, True), (False, True), (True, False), (True, True), (False, True)]


def test_without_a_cache_nothing_hits(guest: EngineGuest) -> None:
    guest.side = None
    guest.arrived(request())
    assert guest.match(request(), 0) == (0, False)
