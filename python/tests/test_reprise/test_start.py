"""Starting a cache when nobody has: one wins, nobody is orphaned, nobody else's is ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reprise
from conftest import CacheProcess, eventually
from reprise import RepriseError, StartedCache, start_cache
from reprise.command import command_environment

SMALL: dict[str, Any] = {"memory": "64MiB", "disk": "1MiB", "stop_when_unused": 1}


def is_alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(process_id: int) -> None:
    end = time.monotonic() + 20
    while is_alive(process_id):
        assert time.monotonic() < end, "the cache is still there"
        time.sleep(0.05)


@pytest.fixture
def ended() -> Iterator[list[StartedCache]]:
    """Caches that are to be ended after a test that failed."""
    started: list[StartedCache] = []
    yield started
    for cache in started:
        if cache.process_id is not None and is_alive(cache.process_id):
            os.kill(cache.process_id, signal.SIGKILL)


def test_a_cache_is_started_used_by_the_next_and_ends_by_itself(folder: Path, ended: list[StartedCache]) -> None:
    first = start_cache(data_dir=folder / "data", **SMALL)
    ended.append(first)
    assert first.socket_path == folder / "data" / "cache.sock"
    assert first.process_id is not None
    assert start_cache(data_dir=folder / "data", **SMALL) == StartedCache(first.socket_path, None)
    options: dict[str, Any] = {"model": "toy", "dtype": "uint8", "token_shape": (4,)}
    with reprise.connect(socket=first.socket_path, **options) as cache:
        assert cache.save(range(100), bytes(400)) == 100
        assert cache.lookup(range(100)).tokens == 100
    wait_until_gone(first.process_id)
    assert not first.socket_path.exists()
    again = start_cache(data_dir=folder / "data", **SMALL)
    ended.append(again)
    with reprise.connect(socket=again.socket_path, **options) as cache:
        eventually(lambda: cache.lookup(range(100)) == (100, {"disk": 100}))


def test_a_started_cache_survives_its_starter(folder: Path) -> None:
    program = (
        "import reprise, sys; "
        "print(reprise.start_cache(data_dir=sys.argv[1], memory='64MiB', disk='1MiB', stop_when_unused=2).process_id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    process_id = int(done.stdout)
    assert is_alive(process_id)
    wait_until_gone(process_id)


def test_of_many_that_start_one_at_once_all_get_the_same(folder: Path) -> None:
    program = (
        "import reprise, sys; print(reprise.start_cache(data_dir=sys.argv[1], memory='64MiB', stop_when_unused=2))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, env=environment, text=True
        )
        for _ in range(3)
    ]
    said = [starter.communicate(timeout=60)[0] for starter in starters]
    assert [starter.returncode for starter in starters] == [0, 0, 0]
    assert all(str(folder / "cache.sock") in line for line in said)
    owner = int((folder / "lock").read_text())
    assert is_alive(owner)
    wait_until_gone(owner)


def test_an_owner_that_is_ending_is_waited_for(folder: Path, ended: list[StartedCache]) -> None:
    first = start_cache(data_dir=folder, **SMALL)
    assert first.process_id is not None
    os.kill(first.process_id, signal.SIGSTOP)
    first.socket_path.unlink()  # an owner that ends has closed its socket and still has the directory
    ended.append(first)
    subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {first.process_id}"])
    second = start_cache(data_dir=folder, **SMALL)
    ended.append(second)
    assert second.process_id is not None
    assert second.process_id != first.process_id


def test_a_cache_of_somebody_else_is_used_and_left_alone(cache: CacheProcess) -> None:
    assert start_cache(socket_path=cache.socket_path) == StartedCache(Path(cache.socket_path), None)
    assert cache.process.poll() is None


def test_an_owner_that_listens_elsewhere_is_named_and_left_alone(folder: Path, ended: list[StartedCache]) -> None:
    first = start_cache(data_dir=folder, **SMALL)
    ended.append(first)
    with reprise.connect(socket=first.socket_path, model="toy", dtype="uint8", token_shape=(4,)) as guest:
        with pytest.raises(RepriseError, match=str(first.process_id)) as error:
            start_cache(data_dir=folder, socket_path=folder / "elsewhere.sock", timeout=2, **SMALL)
        assert error.value.code == "DATA_DIRECTORY_IN_USE"
        assert guest.stats() != {}


def test_a_cache_that_cannot_start_says_why(folder: Path) -> None:
    with pytest.raises(RepriseError, match="--memory") as error:
        start_cache(data_dir=folder, memory="none")
    assert error.value.code == "CACHE_UNAVAILABLE"


def test_a_command_that_is_not_there_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_COMMAND", "no-such-program --flag")
    with pytest.raises(RepriseError, match="no-such-program") as error:
        start_cache(data_dir=folder)
    assert error.value.code == "CACHE_UNAVAILABLE"


def test_a_command_that_never_answers_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_COMMAND", f"sh -c 'echo $$ > {folder}/pid; exec sleep 60'")
    with pytest.raises(RepriseError, match="no cache answers"):
        start_cache(data_dir=folder, timeout=1)
    assert not is_alive(int((folder / "pid").read_text()))


def test_the_command_looks_for_mooncake_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRISE_MOONCAKE_PYTHON", raising=False)
    assert command_environment()["REPRISE_MOONCAKE_PYTHON"] == sys.executable
    monkeypatch.setenv("REPRISE_MOONCAKE_PYTHON", "python3.12")
    assert command_environment()["REPRISE_MOONCAKE_PYTHON"] == "python3.12"
