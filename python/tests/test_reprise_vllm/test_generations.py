"""The interfaces of released vLLMs against what the connector relies on. Needs no vLLM: they are written down."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import reprise_engine
import reprise_vllm
from reprise_engine.counters import meanings
from reprise_vllm.contract import Surface, differences
from reprise_vllm.generations import generation_of
from reprise_vllm.generations.generation import common
from reprise_vllm.generations.v0_20 import From020To026
from reprise_vllm.generations.v0_27 import From027To033
from test_reprise_vllm.record_releases import recorded_entries, replay

recorded: dict[str, Surface] = {
    version: {
        name: {key: None if value is None else tuple(value) for key, value in members.items()}
        for name, members in surface.items()
    }
    for version, surface in replay(recorded_entries()).items()
}
hooks = "KVConnectorBase_V1"


def changed(version: str, name: str, parameters: tuple[str, ...] | None, *, gone: bool = False) -> Surface:
    """The recorded interface with another hook."""
    members = dict(recorded[version][hooks])
    members[name] = parameters
    if gone:
        del members[name]
    return {**recorded[version], hooks: members}


@pytest.mark.parametrize("version", recorded)
def test_a_released_vllm_fits(version: str) -> None:
    generation, is_known = generation_of(version)
    assert is_known
    assert differences(generation, recorded[version]) == []


def test_every_minor_release_of_the_range_is_recorded() -> None:
    assert {version.rpartition(".")[0] for version in recorded} == {f"0.{minor}" for minor in range(20, 34)}


def test_a_release_belongs_to_its_generation_and_others_to_the_newest() -> None:
    assert isinstance(generation_of("0.26.0+cu130")[0], From020To026)
    assert isinstance(generation_of("0.27.0rc1")[0], From027To033)
    for unknown in ("0.34.0", "1.0.0", "0.19.1", "dev"):
        generation, is_known = generation_of(unknown)
        assert isinstance(generation, From027To033) and not is_known
    assert differences(generation_of("0.34.0")[0], recorded["0.33.0"]) == [], "fits, so it runs"
    assert differences(generation_of("0.19.1")[0], recorded["0.20.0"]) == [
        f"{hooks}.bind_gpu_block_pool is missing",
        f"{hooks}.has_pending_push_work is missing",
        f"{hooks}.on_new_request is missing",
        f"{hooks}.set_xfer_handshake_metadata_pp_aware is missing",
        f"{hooks}.requires_kv_delivery is missing",
    ]


def test_what_differs_is_named() -> None:
    newest = generation_of("0.33.0")[0]
    assert differences(newest, changed("0.33.0", "get_finished", None, gone=True)) == [
        f"{hooks}.get_finished is missing"
    ]
    assert differences(newest, changed("0.33.0", "get_finished", ("finished_req_ids", "step"))) == [
        f"{hooks}.get_finished(finished_req_ids, step) is not (finished_req_ids)"
    ]
    assert differences(newest, changed("0.33.0", "get_transfer_results", ("step",))) == [
        f"{hooks}.get_transfer_results(step) is not (finished_req_ids)"
    ]
    assert differences(newest, changed("0.33.0", "hand_over!", None)) == [
        "hand_over is new, and a connector must have it"
    ]
    without = {name: members for name, members in recorded["0.33.0"].items() if name != "CachedRequestData"}
    assert "CachedRequestData.resumed_req_ids is missing" in differences(newest, without)


def test_hashes_are_as_fine_as_the_release_makes_them() -> None:
    old: Any = SimpleNamespace(hash_block_size=8)
    new: Any = SimpleNamespace(prefix_match_unit=4, hash_block_size=8)
    assert [generation_of(version)[0].hash_tokens(old, 16) for version in ("0.20.0", "0.25.1")] == [8, 8]
    assert [generation_of(version)[0].hash_tokens(new, 16) for version in ("0.26.0", "0.33.0")] == [4, 4]
    unset: Any = SimpleNamespace(hash_block_size=None, prefix_match_unit=None)
    assert [generation_of(version)[0].hash_tokens(unset, 16) for version in ("0.20.0", "0.33.0")] == [16, 16]


def test_stages_whose_layouts_are_not_passed_on_are_refused() -> None:
    def why_not(version: str, stages: int) -> str | None:
        config: Any = SimpleNamespace(pipeline_parallel_size=stages)
        return generation_of(version)[0].why_not(config)

    assert "0.23" in (why_not("0.22.1", 2) or "")
    assert why_not("0.22.1", 1) is why_not("0.23.0", 2) is why_not("0.33.0", 2) is None


def test_workers_speak_first_where_the_scheduler_is_not_asked_otherwise() -> None:
    first = [version for version in recorded if generation_of(version)[0].workers_speak_first]
    assert first == ["0.20.0", "0.20.1", "0.20.2", "0.21.0", "0.22.0", "0.22.1", "0.23.0"]


def test_every_counter_has_a_meaning() -> None:
    def names(node: ast.expr) -> Iterator[str]:
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value

    counted: set[str] = set()
    packages = [Path(str(package.__file__)).parent for package in (reprise_engine, reprise_vllm)]
    for file in itertools.chain.from_iterable(package.rglob("*.py") for package in packages):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "add"
                and ast.unparse(node.func.value).endswith("counters")
            ):
                counted |= set(names(node.args[0]))
    assert counted == set(meanings)


def test_every_hook_that_the_connector_has_is_checked() -> None:
    source = Path(reprise_vllm.__file__).with_name("connector.py").read_text()
    (connector,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "RepriseConnector"
    )
    ours = {node.name for node in connector.body if isinstance(node, ast.FunctionDef)}
    theirs = {name for surface in recorded.values() for name in surface[hooks]}
    checked = set(common[hooks])
    for version in ("0.20.0", "0.33.0"):
        generation = generation_of(version)[0]
        checked |= {*generation.required.get(hooks, {}), *generation.sometimes.get(hooks, {})}
    assert ours & theirs <= checked
