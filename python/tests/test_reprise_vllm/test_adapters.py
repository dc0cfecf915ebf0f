"""Adapters are known by what they do, and go without the cache where that cannot be told."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reprise_engine.log import log
from reprise_vllm.adapters import Adapters


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def adapter(folder: Path, weights: bytes = b"weights", alpha: int = 16) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": alpha}))
    return folder


def request(name: str, number: int, folder: Path, **more: Any) -> Any:
    return SimpleNamespace(lora_name=name, lora_int_id=number, lora_path=str(folder), **more)


def known(adapters: Adapters, lora: Any) -> str | None:
    """What it is known as once its digest is made."""
    first = adapters.identity(lora)
    for thread in threading.enumerate():
        if thread.name == "reprise-adapter":
            thread.join()
    return first or adapters.identity(lora)


def test_requests_of_the_base_have_the_empty_identity() -> None:
    assert Adapters().identity(None) == ""
    assert Adapters().is_only_one(None)


def test_an_adapter_is_known_by_what_it_does_not_by_its_name_number_or_path(tmp_path: Path) -> None:
    here, there = adapter(tmp_path / "here"), adapter(tmp_path / "there")
    adapters = Adapters()
    assert adapters.identity(request("one", 1, here)) is None, "it is being read"
    first = known(adapters, request("one", 1, here))
    assert first and known(adapters, request("two", 2, there)) == first
    assert known(Adapters(), request("one", 7, there)) == first
    assert known(Adapters("bfloat16"), request("one", 1, here)) != first
    assert known(adapters, request("three", 3, adapter(tmp_path / "other", b"others"))) not in (None, first)


def test_the_same_weights_with_another_scale_are_another_adapter(tmp_path: Path) -> None:
    weak, strong = adapter(tmp_path / "weak", alpha=8), adapter(tmp_path / "strong", alpha=32)
    adapters = Adapters()
    assert known(adapters, request("weak", 1, weak)) != known(adapters, request("strong", 2, strong))


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter_whose_files_change_goes_without_the_cache(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "warning", lambda message, *values: said.append(message % values))
    folder = adapter(tmp_path / "a")
    adapters = Adapters()
    first = known(adapters, request("a", 1, folder))
    before = (folder / file).read_bytes()
    (folder / file).write_bytes(before.replace(b"6", b"7").replace(b"w", b"W"))
    os.utime(folder / file, ns=(1, 1))  # a coarse clock may give both writes one time
    assert adapters.identity(request("a", 1, folder)) is None, "vLLM may still have the old ones, or not"
    (folder / file).write_bytes(before)
    assert adapters.identity(request("a", 1, folder)) is None
    assert len(said) == 1 and "have changed" in said[0]
    assert known(adapters, request("a", 2, folder)) == first, "as a new adapter it is loaded afresh"


def test_another_path_under_the_same_number_goes_without_the_cache(tmp_path: Path) -> None:
    adapters = Adapters()
    assert known(adapters, request("a", 1, adapter(tmp_path / "a")))
    assert adapters.identity(request("a", 1, adapter(tmp_path / "b", b"others"))) is None


def test_nothing_is_stored_while_a_name_stands_for_two_adapters(tmp_path: Path) -> None:
    one, same, other = adapter(tmp_path / "1"), adapter(tmp_path / "2"), adapter(tmp_path / "3", b"others")
    adapters = Adapters()
    assert known(adapters, request("a", 1, one)) and adapters.is_only_one(request("a", 1, one))
    assert known(adapters, request("a", 2, same)) and adapters.is_only_one(request("a", 1, one))
    assert known(adapters, request("a", 3, other))
    assert not adapters.is_only_one(request("a", 3, other)) and not adapters.is_only_one(request("a", 1, one))
    assert known(adapters, request("b", 4, other)) and adapters.is_only_one(request("b", 4, other))


def test_an_adapter_that_cannot_be_read_goes_without_the_cache(tmp_path: Path) -> None:
    adapters = Adapters()
    assert known(adapters, request("a", 1, tmp_path / "nowhere")) is None
    (adapter(tmp_path / "half") / "adapter_config.json").unlink()
    assert known(adapters, request("b", 2, tmp_path / "half")) is None
    elsewhere = request("c", 3, adapter(tmp_path / "c"), tensorizer_config_dict={"uri": "elsewhere"})
    assert known(adapters, elsewhere) is None
