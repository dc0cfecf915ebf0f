"""The pool's file, mapped: in place, within its bounds, and never a bus error."""

import ctypes
from pathlib import Path

import pytest

from reprise import Pool, RepriseError


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "pool"
    path.write_bytes(bytes(range(256)) * 256)
    path.chmod(0o600)
    return path


def test_a_slot_is_the_files_own_memory(file: Path) -> None:
    mine, other = Pool(str(file), 65536), Pool(str(file), 65536)
    mine.slot(4096, 3)[:] = b"abc"
    assert bytes(other.slot(4095, 5)) == b"\xffabc\x03"
    assert ctypes.string_at(other.address + 4096, 3) == b"abc"
    assert file.read_bytes()[4096:4099] == b"abc"
    mine.close()
    other.close()


@pytest.mark.parametrize(("offset", "count"), [(-1, 1), (0, -1), (65536, 1), (65000, 537), (0, 65537)])
def test_a_slot_beyond_the_pool_is_refused(file: Path, offset: int, count: int) -> None:
    pool = Pool(str(file), 65536)
    with pytest.raises(ValueError, match="not within the pool"):
        pool.slot(offset, count)
    pool.close()


def test_a_file_that_is_shorter_than_announced_is_not_mapped(file: Path) -> None:
    with pytest.raises(RepriseError, match="65536 bytes; 65537 were announced") as error:
        Pool(str(file), 65537)
    assert error.value.code == "CACHE_UNAVAILABLE"


def test_a_pool_that_is_gone_is_an_unavailable_cache(folder: Path) -> None:
    with pytest.raises(RepriseError) as error:
        Pool(str(folder / "gone"), 65536)
    assert error.value.code == "CACHE_UNAVAILABLE"


def test_slots_outlive_the_pool_that_was_closed_and_the_file_that_was_removed(file: Path) -> None:
    pool = Pool(str(file), 65536)
    slot = pool.slot(1, 3)
    file.unlink()
    pool.close()
    assert bytes(slot) == b"\x01\x02\x03"
    with pytest.raises(ValueError, match="released"):
        pool.slot(0, 1)
