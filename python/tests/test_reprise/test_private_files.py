"""What another user plants under our names: not opened, not written through, not mapped, not spoken to."""

import os
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import SLOT_BYTES, space
from reprise import CacheLink, Pool, RepriseError, start_cache
from reprise.client import default_socket
from reprise.private_files import (
    ForeignError,
    create_private,
    make_directories,
    open_or_create_private,
    open_private,
    replace_private,
)

OTHER_USER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder as /tmp is: everybody may make names, nobody may move those of others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


class OtherUser:
    """A process of the other user that does `work`, and tells what it writes to the pipe that it is given."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self._reads, writes = os.pipe()
        self.process_id = os.fork()
        if self.process_id == 0:
            code = 1
            try:
                os.setgroups([])
                os.setgid(OTHER_USER)
                os.setuid(OTHER_USER)
                os.umask(0)
                work(writes)
                code = 0
            finally:
                os._exit(code)
        os.close(writes)

    def told(self) -> bytes:
        return os.read(self._reads, 1000)

    def wait(self) -> int:
        os.close(self._reads)
        return os.waitstatus_to_exitcode(os.waitpid(self.process_id, 0)[1])

    def end(self) -> None:
        os.kill(self.process_id, signal.SIGKILL)
        self.wait()


def listen_at(path: Path) -> Callable[[int], None]:
    """Listens, accepts one connection, and tells how many bytes came over it."""

    def work(pipe: int) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            os.write(pipe, b"listening")
            connection, _ = server.accept()
            os.write(pipe, str(len(connection.recv(65536))).encode())
            time.sleep(60)

    return work


def make_fifo(path: Path) -> None:
    os.mkfifo(path, 0o666)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [Path.mkdir, make_fifo, make_socket, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_regular_file_is_not_opened_and_blocks_nobody(folder: Path, make: object) -> None:
    path = folder / "name"
    make(path)  # type: ignore[operator]
    for flags in (os.O_RDONLY, os.O_RDWR):
        with pytest.raises(ForeignError, match="no regular file"):
            open_private(path, flags)
    with pytest.raises(ForeignError):
        open_or_create_private(path)


def test_a_file_that_others_can_read_or_write_is_not_ours_alone(folder: Path) -> None:
    path = folder / "file"
    os.close(create_private(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.close(open_private(path, os.O_RDWR))
    path.chmod(0o640)
    with pytest.raises(ForeignError, match="others can"):
        open_private(path, os.O_RDONLY)
    os.close(open_private(path, os.O_RDONLY, tighten=True))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o602)
    with pytest.raises(ForeignError, match="others can"):
        open_private(path, os.O_RDONLY, tighten=True)


def test_nothing_is_written_through_a_link_or_a_second_name(folder: Path) -> None:
    victim, path = folder / "victim", folder / "file"
    replace_private(victim, b"ours")
    path.symlink_to(victim)
    replace_private(path, b"new")
    assert not path.is_symlink()
    assert (victim.read_bytes(), path.read_bytes()) == (b"ours", b"new")
    path.unlink()
    os.link(victim, path)
    with pytest.raises(ForeignError, match="second name"):
        open_or_create_private(path)
    assert sorted(entry.name for entry in folder.iterdir()) == ["file", "victim"]


def test_directories_are_made_one_by_one_for_us_alone(folder: Path) -> None:
    make_directories(folder / "a" / "b")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder / "a", folder / "a" / "b")] == [0o700, 0o700]
    with pytest.raises(OSError):
        make_directories(Path("/proc/reprise/data"))


def test_the_log_of_a_started_cache_is_not_written_through_a_link(folder: Path) -> None:
    victim = folder / "victim"
    replace_private(victim, b"ours")
    data = folder / "data"
    make_directories(data)
    (data / "cache.log").symlink_to(victim)
    with pytest.raises(RepriseError, match=r"cache\.log") as error:
        start_cache(data_dir=data)
    assert error.value.code == "BAD_CONFIG"
    assert victim.read_bytes() == b"ours"


@needs_root
def test_a_pool_of_another_user_is_not_mapped(shared: Path) -> None:
    path = shared / "pool"

    def plant(_: int) -> None:
        path.write_bytes(bytes(65536))

    assert OtherUser(plant).wait() == 0
    with pytest.raises(RepriseError, match=f"belongs to user {OTHER_USER}") as error:
        Pool(str(path), 65536)
    assert error.value.code == "CACHE_UNAVAILABLE"
    link = shared / "link"
    ours = shared / "ours"
    replace_private(ours, bytes(65536))
    link.symlink_to(ours)
    with pytest.raises(RepriseError, match="no regular file"):
        Pool(str(link), 65536)


@needs_root
def test_a_socket_at_which_another_user_listens_is_not_spoken_to(shared: Path) -> None:
    path = shared / "cache.sock"
    listener = OtherUser(listen_at(path))
    try:
        assert listener.told() == b"listening"
        link = CacheLink(socket_path=str(path), space=space(), rank=0, slot_bytes=[SLOT_BYTES], token="secret")
        begin = time.monotonic()
        assert not link.connect(0.5)
        assert time.monotonic() - begin < 5
        assert f"user {OTHER_USER} listens there" in str(link.last_error)
        assert listener.told() == b"0"  # connected, and not a byte was sent
        link.close()
    finally:
        listener.end()


@needs_root
def test_a_cache_is_not_taken_for_ours_when_another_user_listens(shared: Path, folder: Path) -> None:
    path = shared / "cache.sock"
    listener = OtherUser(listen_at(path))
    try:
        assert listener.told() == b"listening"
        with pytest.raises(RepriseError, match="can be written by others") as error:
            start_cache(socket_path=path, data_dir=folder / "data", memory="64MiB", disk="1MiB", timeout=20)
        assert error.value.code == "CACHE_UNAVAILABLE"
    finally:
        listener.end()


def test_a_tilde_in_the_environment_is_the_home_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("REPRISE_DATA_DIR", "~/data")
    monkeypatch.delenv("REPRISE_SOCKET", raising=False)
    assert default_socket() == folder / "data" / "cache.sock"
    monkeypatch.setenv("REPRISE_SOCKET", "~/s")
    assert default_socket() == folder / "s"
