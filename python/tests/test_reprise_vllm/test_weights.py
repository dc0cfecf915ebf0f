"""The identity of weights, and what may happen to their files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reprise_engine.jobs import Geometry
from reprise_vllm import weights
from reprise_vllm.identity import NotSupported, describe_space
from reprise_vllm.weights import changed_since, process_started, weights_digest

_first, _second = b"1" * 100_000, b"2" * 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models = tmp_path / "models" / "small"
    models.mkdir(parents=True)
    for name, content in (("one", _first), ("two", b"the same in both")):
        (models / f"{name}.safetensors").write_bytes(content)
        os.utime(models / f"{name}.safetensors", ns=(10**18, 10**18))
    return models


def other(tmp_path: Path) -> Path:
    path = tmp_path / "other"
    path.write_bytes(_second)
    os.utime(path, ns=(10**18, 10**18))
    return path


def in_place(target: Path, source: Path) -> None:
    with target.open("r+b") as file:
        file.write(source.read_bytes())
    os.utime(target, ns=(10**18, 10**18))


def copied_again(target: Path, source: Path) -> None:
    target.unlink()
    shutil.copy2(source, target)


def linked(target: Path, source: Path) -> None:
    target.unlink()
    os.link(source, target)


def symlinked(target: Path, source: Path) -> None:
    target.unlink()
    target.symlink_to(source)


def other_folder(target: Path, source: Path) -> None:
    fresh = target.parent.with_name("fresh")
    shutil.copytree(target.parent, fresh)
    shutil.copy2(source, fresh / target.name)
    target.parent.rename(target.parent.with_name("old"))
    fresh.rename(target.parent)


_ways: dict[str, Callable[[Path, Path], Any]] = {
    "renamed over it": lambda target, source: source.replace(target),
    "copied with times kept": lambda target, source: subprocess.run(["cp", "-p", source, target], check=True),
    "written in place, times put back": in_place,
    "removed and copied": copied_again,
    "a hard link": linked,
    "a symbolic link": symlinked,
    "another folder": other_folder,
}


@pytest.mark.parametrize("way", _ways)
def test_weights_that_were_replaced_have_another_digest(tmp_path: Path, folder: Path, way: str) -> None:
    memory = tmp_path / "memory" / "weights.json"
    before = weights_digest(folder, memory=memory)
    assert weights_digest(folder, memory=memory) == before
    _ways[way](folder / "one.safetensors", other(tmp_path))
    after = weights_digest(folder, memory=memory)
    assert after != before
    assert after == weights_digest(folder, memory=tmp_path / "elsewhere.json"), "it is that of the content"


@pytest.mark.parametrize("way", _ways)
def test_weights_that_were_replaced_while_the_engine_started_are_noticed(
    tmp_path: Path, folder: Path, way: str
) -> None:
    source = other(tmp_path)
    time.sleep(0.05)
    moment = time.time()
    assert changed_since(folder, moment) is None
    time.sleep(0.05)
    _ways[way](folder / "one.safetensors", source)
    assert changed_since(folder, moment) is not None


def test_a_link_on_the_way_that_was_turned_is_noticed(tmp_path: Path, folder: Path) -> None:
    served = tmp_path / "served"
    served.symlink_to(folder.parent)
    time.sleep(0.05)
    moment = time.time()
    assert changed_since(served / "small", moment) is None
    time.sleep(0.05)
    shutil.copytree(folder, tmp_path / "elsewhere" / "small")
    served.unlink()
    served.symlink_to(tmp_path / "elsewhere")
    assert changed_since(served / "small", moment) is not None


def test_the_process_began_before_now_and_after_its_parent() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "from reprise_vllm.weights import process_started as p; import time; print(p(), time.time())",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    began, now = map(float, said.stdout.split())
    assert process_started() < began < now < began + 60


def test_an_engine_whose_weights_came_while_it_started_is_refused(folder: Path) -> None:
    with pytest.raises(NotSupported, match=r"one\.safetensors|small .*while vLLM started|small was put there"):
        describe_space(config(folder), kv_cache(), Geometry(16, 64, 1024, 1, 16), [])


def test_files_of_a_known_identity_with_other_content_are_other_weights(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_identity", lambda _: "as in every copy of this image")
    memory = tmp_path / "weights.json"
    (folder / "two.safetensors").unlink()
    before = weights_digest(folder, memory=memory)
    (folder / "one.safetensors").write_bytes(_first[:50_000] + b"2" * 8192 + _first[58_192:])
    assert weights_digest(folder, memory=memory) != before


def test_known_weights_are_sampled_not_read(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "weights.json"
    (folder / "one.safetensors").write_bytes(bytes(64 << 20))
    before = weights_digest(folder, memory=memory)
    read: list[int] = []
    whole = os.pread

    def counted(file: int, size: int, at: int) -> bytes:
        read.append(size)
        return whole(file, size, at)

    monkeypatch.setattr(os, "pread", counted)
    started = time.process_time()
    assert weights_digest(folder, memory=memory) == before
    assert sum(read) <= 2 << 20
    assert time.process_time() - started < 0.1, "64 MiB would take longer"


def test_a_file_that_changes_while_it_is_read_has_no_digest(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = weights._sample

    def late_writer(file: int, size: int, pages: int) -> str:
        (folder / "one.safetensors").write_bytes(_second)
        return sample(file, size, pages)

    monkeypatch.setattr(weights, "_sample", late_writer)
    with pytest.raises(OSError, match="changed while it was read"):
        weights_digest(folder, memory=tmp_path / "weights.json")


@pytest.mark.parametrize("form", ["damaged", "old", "link", "writable"])
def test_digests_that_are_damaged_or_planted_are_not_believed(tmp_path: Path, folder: Path, form: str) -> None:
    memory = tmp_path / "weights.json"
    true = weights_digest(folder, memory=memory)
    assert memory.stat().st_mode & 0o777 == 0o600
    lie = json.loads(memory.read_text())
    for known in lie.values():
        known["digest"] = "0" * 64
    memory.write_text(json.dumps(lie))
    assert weights_digest(folder, memory=memory) != true, "what is remembered is used"
    if form == "damaged":
        memory.write_text("{")
    elif form == "old":
        memory.write_text(json.dumps(dict.fromkeys(lie, "0" * 64)))
    elif form == "link":
        memory.rename(tmp_path / "planted")
        memory.symlink_to(tmp_path / "planted")
    else:
        memory.chmod(0o666)
    assert weights_digest(folder, memory=memory) == true
    assert sorted(path.name for path in tmp_path.glob("weights.json*")) == ["weights.json"]


def config(folder: Path) -> Any:
    hf = SimpleNamespace(to_dict=lambda: {"num_hidden_layers": 1})
    return SimpleNamespace(
        model_config=SimpleNamespace(
            hf_text_config=hf, model=str(folder), revision=None, dtype="bfloat16", quantization=None
        ),
        parallel_config=SimpleNamespace(tensor_parallel_size=1, pipeline_parallel_size=1),
        cache_config=SimpleNamespace(cache_dtype="auto"),
        load_config=SimpleNamespace(load_format="auto"),
    )


def kv_cache() -> Any:
    spec = SimpleNamespace(block_size=16, dtype="torch.bfloat16")
    return SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec)])
