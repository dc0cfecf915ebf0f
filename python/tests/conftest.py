"""Real caches for the tests: the TypeScript one, behind its socket, as a process of its own."""

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reprise import CacheLink, SpaceDescription

REPOSITORY = Path(__file__).parents[2]
GUARD = REPOSITORY / "test" / "support" / "end-with-run.mjs"
CHUNK_TOKENS = 4
SLOT_BYTES = 8192


def space(**change: object) -> SpaceDescription:
    """A small space; `change` replaces fields."""
    fields: dict[str, object] = {
        "engine": "test",
        "payload_format": 1,
        "weights": "00",
        "key_type": "f16",
        "value_type": "f16",
        "layers": 1,
        "key_value_heads": 1,
        "key_size": 8,
        "value_size": 8,
        "layout": "token-major",
        "attention": "dense",
        "rope": "",
        "tensor_parallel": 1,
        "chunk_tokens": CHUNK_TOKENS,
    }
    return SpaceDescription(**{**fields, **change})  # type: ignore[arg-type]


class CacheProcess:
    """A cache over real parts that ends with the test, or when it is killed."""

    def __init__(
        self, folder: Path, *, memory_bytes: int = 64 << 20, disk: bool = False, token: str | None = None
    ) -> None:
        self.socket_path = str(folder / "cache.sock")
        arguments = [self.socket_path, str(memory_bytes), str(folder / "disk") if disk else ""]
        program = REPOSITORY / ".build" / "test" / "support" / "wire-host.js"
        self.process = subprocess.Popen(
            ["node", str(program), *arguments, *([] if token is None else [token])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def stop(self) -> None:
        """Ends it as its owner would, and waits for it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)

    def kill(self) -> None:
        """Ends it without a goodbye."""
        self.process.kill()
        self.process.wait(20)


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for what comes by itself: a cache that has just started reads in the background what it has on disk."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.01)


def _end_with_run() -> subprocess.Popen[bytes]:
    """What the run starts ends with it, however it ends: see test/support/end-with-run.mjs."""
    mark = str(uuid.uuid4())
    outside = {**os.environ, "REPRISE_TEST_RUN": ""}
    guard = subprocess.Popen(["node", str(GUARD), mark], stdin=subprocess.PIPE, env=outside, start_new_session=True)
    os.environ["REPRISE_TEST_RUN"] = mark
    return guard


# It waits for the end of its input, which this name keeps open as long as the process lives.
_guard = _end_with_run()


@pytest.fixture(scope="session", autouse=True)
def built_host() -> None:
    """Compiles the cache's test host once."""
    subprocess.run(
        ["node", "scripts/run-ts.mjs", "test/support/wire-host.ts", "/dev/null/no-place"],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: socket addresses hold 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="reprise-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def cache(folder: Path) -> Iterator[CacheProcess]:
    """A cache in memory."""
    process = CacheProcess(folder)
    yield process
    process.stop()


@pytest.fixture
def link(cache: CacheProcess) -> Iterator[CacheLink]:
    """A link to `cache` that is up."""
    link = CacheLink(socket_path=cache.socket_path, space=space(), rank=0, slot_bytes=[SLOT_BYTES])
    assert link.connect(5), link.last_error
    yield link
    link.close()
