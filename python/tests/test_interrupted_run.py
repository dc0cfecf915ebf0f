"""However a run of these tests ends, the caches that it started end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from conftest import eventually

HERE = Path(__file__).parent


def marked(mark: str) -> list[str]:
    """Command lines of the processes that inherited the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            pass  # gone meanwhile
    return found


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_in_its_middle_leaves_no_process_behind(sent: signal.Signals) -> None:
    mark = f"INTERRUPTED={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_reprise/test_link.py")],
        cwd=HERE.parent,
        env={**os.environ, name: value},
        stdout=subprocess.DEVNULL,
    )
    eventually(lambda: any("wire-host.js" in line and "no-place" not in line for line in marked(mark)), 60)
    run.send_signal(sent)
    run.wait(60)
    eventually(lambda: marked(mark) == [], 15)
