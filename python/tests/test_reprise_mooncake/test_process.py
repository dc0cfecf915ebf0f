"""The process as far as it goes without Mooncake: when it ends. With Mooncake the cache's own tests start it."""

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[2]
OPENING = {"master": "127.0.0.1:1", "host": "", "protocol": "tcp", "device": "", "metadata": "", "segment": 0}


def start(channel: socket.socket, *flags: str, path: Path | None = None) -> "subprocess.Popen[bytes]":
    """As the cache starts it: the socket is file 3, the memory file 4. `path` has what is not installed."""
    memory = os.memfd_create("test")
    os.ftruncate(memory, 4096)

    def place() -> None:
        socket_file, memory_file = os.dup(channel.fileno()), os.dup(memory)
        os.dup2(socket_file, 3)
        os.dup2(memory_file, 4)

    program = [sys.executable, *flags, "-m", "reprise_mooncake"]
    process = subprocess.Popen(
        program,
        cwd=PYTHON,
        close_fds=False,
        preexec_fn=place,  # noqa: PLW1509 (there are no threads here)
        stderr=subprocess.PIPE,
        env=None if path is None else {**os.environ, "PYTHONPATH": str(path)},
    )
    channel.close()
    os.close(memory)
    return process


def frame(message: object) -> bytes:
    text = json.dumps(message).encode()
    return struct.pack("<I", len(text)) + text


@pytest.mark.parametrize(("said", "code"), [(b"", 0), (struct.pack("<I", 2**31), 1), (frame({"master": 1}), 1)])
def test_it_ends_with_its_socket_and_at_nonsense(said: bytes, code: int) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        process = start(theirs)
        ours.sendall(said)
        if code == 0:
            ours.close()
        assert process.wait(20) == code
    assert process.stderr is not None
    assert (b"makes no sense" in process.stderr.read()) is (code == 1)
    process.stderr.close()


def test_without_the_wheel_it_says_so() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        process = start(theirs, "-S")  # without what is installed
        ours.sendall(frame(OPENING))
        (length,) = struct.unpack("<I", ours.recv(4))
        assert json.loads(ours.recv(length)) == {"state": "absent", "why": "No module named 'mooncake'"}
        assert process.wait(20) == 1
    assert process.stderr is not None
    process.stderr.close()


def test_it_ends_with_its_socket_while_the_master_is_away(tmp_path: Path) -> None:
    (tmp_path / "mooncake").mkdir()
    (tmp_path / "mooncake" / "store.py").write_text("MooncakeDistributedStore = None\n")
    ours, theirs = socket.socketpair()
    with ours:
        process = start(theirs, path=tmp_path)
        ours.sendall(frame(OPENING))
        (length,) = struct.unpack("<I", ours.recv(4))
        assert json.loads(ours.recv(length)) == {"state": "away", "why": "Connection refused"}
    assert process.wait(10) == 0
    assert process.stderr is not None
    process.stderr.close()
