"""Which requests go to the cache, and as whose texts."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from reprise_engine.options import Options
from reprise_engine.scheduler.scheduler_side import SchedulerSide
from reprise_engine.scheduler.tracked_request import Root
from reprise_vllm.engine_guest import EngineGuest
from reprise_vllm.generations import generation_of


class AskedSide:
    """In place of the scheduler side: everything is stored."""

    def __init__(self) -> None:
        self.asked: list[tuple[Root, bool, bool]] = []
        self.promised: list[float | None] = []

    def match(
        self,
        request: Any,
        computed: int,
        *,
        root: Root,
        may_read: bool,
        may_save: bool,
        awaited: bool,
        promised_until: float | None,
    ) -> tuple[int, bool]:
        self.asked.append((root, may_read, may_save))
        self.promised.append(promised_until)
        return 64, False

    def arrived(self, request: Any, *, root: Root, may_read: bool, may_save: bool, awaited: bool) -> None:
        self.asked.append((root, may_read, may_save))

    def finished(self, request: Any, blocks: Any) -> bool:
        return False

    def set_aside(self, request_id: str) -> None:
        return

    def reset(self, *, pool_is_empty: bool) -> bool:
        return True


def request(**other: Any) -> Any:
    plain: dict[str, Any] = {
        "request_id": "r",
        "lora_request": None,
        "mm_features": [],
        "prompt_embeds": None,
        "pooling_params": None,
        "kv_transfer_params": None,
        "skip_reading_prefix_cache": False,
        "cache_salt": None,
    }
    return SimpleNamespace(**{**plain, **other})


def guest_of_role(role: str, *, beside_others: bool = False) -> EngineGuest:
    config = SimpleNamespace(kv_transfer_config=SimpleNamespace(kv_role=role))
    made = EngineGuest(config, None, Options(), generation_of("0.29.0")[0], beside_others=beside_others)
    made.side = cast(SchedulerSide, AskedSide())
    return made


@pytest.fixture
def guest() -> EngineGuest:
    return guest_of_role("kv_both")


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
    monkeypatch.setattr(
        guest._admission._adapters, "identity", lambda lora: "" if lora is None else f"digest of {lora}"
    )
    monkeypatch.setattr(guest._admission._adapters, "is_only_one", lambda lora: True)
    for other in ({}, {"cache_salt": "a"}, {"cache_salt": "b"}, {"cache_salt": "a", "lora_request": "x"}):
        assert guest.match(request(**other), 0) == (64, False)
    roots = [root for root, _, _ in asked(guest)]
    assert roots == [Root("", ""), Root("a", ""), Root("b", ""), Root("a", "digest of x")]


def test_an_adapter_that_is_not_known_goes_without_the_cache(guest: EngineGuest, monkeypatch: Any) -> None:
    monkeypatch.setattr(guest._admission._adapters, "identity", lambda lora: None)
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


#: What JSON can bring, and what in-process callers can.
anything: list[Any] = [
    5,
    -1.5,
    "text",
    "",
    [],
    [1],
    ["read"],
    True,
    False,
    {"a": {"b": []}},
    "x" * 10_000_000,
    b"bytes",
]
deep: Any = {}
for _ in range(900):
    deep = {"read": deep}


@pytest.mark.parametrize("value", [*anything, deep], ids=lambda value: f"{type(value).__name__} {str(value)[:12]}")
def test_wishes_that_cannot_be_read_cost_that_request_the_cache_and_nothing_else(
    guest: EngineGuest, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [{"reprise": value}, {"reprise": {"read": value}}, {"reprise": {"save": value}}, {"reprise": {"x": value}}]
    if not isinstance(value, dict):
        odd.append(value)
    read = [params for params in odd if params in ({"reprise": {"read": value}}, {"reprise": {"save": value}})]
    for params in odd:
        if isinstance(value, bool) and params in read:
            continue  # these are wishes
        guest.arrived(request(kv_transfer_params=params))
        assert guest.match(request(kv_transfer_params=params), 0) == (0, False)
    assert asked(guest) == []
    guest.arrived(request())
    assert asked(guest) == [(Root("", ""), True, True)]


def test_null_is_as_not_given(guest: EngineGuest) -> None:
    ways: list[Any] = [None, {}, {"reprise": None}, {"reprise": {}}, {"reprise": {"read": None, "save": None}}]
    for params in ways:
        guest.arrived(request(kv_transfer_params=params))
    assert asked(guest) == [(Root("", ""), True, True)] * 5


@pytest.mark.parametrize("salt", [5, ["a"], {"a": 1}, b"a"])
def test_a_salt_that_is_no_text_costs_that_request_the_cache_and_any_text_is_one(guest: EngineGuest, salt: Any) -> None:
    assert guest.match(request(cache_salt=salt), 0) == (0, False)
    assert asked(guest) == []
    assert guest.counters["requests_unreadable"] == guest.counters["requests_skipped"] == 1
    for text in ("a\ud800", "ä" * 2049, "a" * 5_000_000, "\0", "line\nbreak"):
        assert guest.match(request(cache_salt=text), 0) == (64, False)


def test_each_kind_of_unreadable_request_is_told_once_and_without_its_words(
    guest: EngineGuest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    for i in range(50):
        for params in (f"secret {i}", {"reprise": [f"secret {i}"]}, {"reprise": {f"secret {i}": 1}}):
            guest.match(request(kv_transfer_params=params), 0)
        guest.match(request(cache_salt=b"secret"), 0)
    seen = {id(record): record for record in caplog.records if record.name == "vllm.reprise"}
    lines = [record.getMessage() for record in seen.values()]
    assert len(lines) == 4 and not any("secret" in line for line in lines)


@pytest.mark.parametrize(("role", "saves"), [("kv_both", True), ("kv_producer", True), ("kv_consumer", False)])
def test_a_consumer_does_not_save(role: str, saves: bool) -> None:
    guest = guest_of_role(role)
    guest.arrived(request())
    assert asked(guest) == [(Root("", ""), True, saves)]


def test_a_request_may_say_that_its_text_is_awaited(guest: EngineGuest) -> None:
    for wish, awaited in ((None, False), (False, False), (True, True)):
        how = guest._admission.of(request(kv_transfer_params={"reprise": {"await": wish}}))
        assert how is not None and how.awaited is awaited and how.may_read and how.may_save
    assert guest._admission.of(request(kv_transfer_params={"reprise": {"await": 1}})) is None


@pytest.mark.parametrize(
    ("params", "until"),
    [
        (None, None),
        ({"do_remote_prefill": False, "reprise": {"valid_until": 5}}, None),
        ({"do_remote_prefill": True, "reprise": {"valid_until": 5, "save": True}}, 5.0),
        ({"do_remote_prefill": True}, 0.0),
        ({"do_remote_prefill": [0], "reprise": {"valid_until": None}}, 0.0),
    ],
)
def test_what_another_connector_brings_is_not_looked_for(params: dict[str, Any] | None, until: float | None) -> None:
    guest = guest_of_role("kv_both", beside_others=True)
    guest.arrived(request(kv_transfer_params=params))
    assert len(asked(guest)) == (1 if until is None else 0), "nobody asks early"
    guest.match(request(kv_transfer_params=params), 0)
    assert cast(AskedSide, guest.side).promised == [until]


def test_alone_the_connector_takes_no_notice_of_what_others_would_bring(guest: EngineGuest) -> None:
    guest.match(request(kv_transfer_params={"do_remote_prefill": True}), 0)
    assert cast(AskedSide, guest.side).promised == [None]


@pytest.mark.parametrize("moment", [True, "soon", [5], float("nan"), float("inf")])
def test_a_moment_that_is_none_cannot_be_read(guest: EngineGuest, moment: Any) -> None:
    assert guest._admission.of(request(kv_transfer_params={"reprise": {"valid_until": moment}})) is None


def test_a_request_that_was_set_aside_is_not_asked_about_again_until_its_id_is_free(guest: EngineGuest) -> None:
    guest.set_aside(request())
    assert guest.match(request(), 0) == (0, False) and asked(guest) == []
    guest.finished(request(), [])
    assert guest.match(request(), 0) == (64, False)


def test_after_a_reset_texts_have_other_roots_and_adapters_stay_apart(
    guest: EngineGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest._admission._adapters, "identity", lambda lora: "" if lora is None else "digest")
    monkeypatch.setattr(guest._admission._adapters, "is_only_one", lambda lora: True)
    for _ in range(3):
        guest.arrived(request(cache_salt="a"))
        guest.arrived(request(cache_salt="a", lora_request="x"))
        assert guest.reset()
    roots = [root for root, _, _ in asked(guest)]
    assert len(set(roots)) == 6 and {root.salt for root in roots} == {"a"}
    assert all(len(root.adapter) < 200 for root in roots)
    another = guest_of_role("kv_both")
    assert another.reset()
    another.arrived(request(cache_salt="a"))
    assert asked(another)[0][0] not in roots, "two engines do not share a generation"
