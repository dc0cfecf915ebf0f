"""A worker's view of the memory pool: the cache's file, mapped, and registered with the device while the engine runs.

Registered memory is what makes copies fast and asynchronous; unregistered memory is as correct. A thread registers
extent after extent, in the order in which the cache hands them out. Registering gives a hole in the file its pages, so
the thread stops before the last room of /dev/shm is gone, and from then on tries only extents that a job asks for.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from reprise.private_files import open_private
from reprise_engine.copy.copier import EXTENT_BYTES
from reprise_engine.log import log

if TYPE_CHECKING:
    import numpy.typing as npt

    from reprise_engine.plan import PoolRef


#: Left free in /dev/shm: registering never takes the last pages from others.
RESERVE_BYTES = 256 * 1024 * 1024
#: An extent that was refused is tried again after this long, and only when a job needs it.
RETRY_SECONDS = 5.0


class Registrar(Protocol):
    """How memory is registered with the device. Both return 0, or the runtime's error code."""

    def enter_thread(self) -> None: ...

    def register(self, address: int, size: int) -> int: ...

    def unregister(self, address: int) -> int: ...


class PoolMap:
    """The mapped pool. `view` is all of it as bytes; only slots that the cache handed out may be touched."""

    def __init__(
        self, pool: PoolRef, registrar: Registrar | None = None, free_bytes: Callable[[int], int] | None = None
    ) -> None:
        """@throws OSError when the file is gone, another user's, or shorter than announced."""
        self.epoch = pool.epoch
        self.bytes = pool.bytes
        self._registrar = registrar
        self._free_bytes = free_bytes or _free_bytes
        self._file = open_private(pool.path, os.O_RDWR)
        try:
            if os.fstat(self._file).st_size < pool.bytes:
                raise OSError(f"the memory pool {pool.path} is shorter than the {pool.bytes} bytes announced")
            self._map = mmap.mmap(self._file, pool.bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except BaseException:
            os.close(self._file)
            raise
        self.view: npt.NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        self.address = int(self.view.ctypes.data)
        #: [extents] True once an extent is registered. Written by the thread only.
        self.registered: npt.NDArray[np.bool_] = np.zeros(-(-pool.bytes // EXTENT_BYTES), dtype=np.bool_)
        #: Extents that are registered before a job asks for them: those that the cache may use. Others have no pages.
        self._ahead = min(self.registered.size, -(-pool.capacity_bytes // EXTENT_BYTES))
        #: Extents that were refused, with the time at which they may be tried again.
        self._refused: dict[int, float] = {}
        self._wanted: set[int] = set()
        self._wake = threading.Condition()
        self._closed = False
        #: Extents are still being registered ahead of need: what is not registered yet will be soon.
        self.is_registering = registrar is not None
        self._thread: threading.Thread | None = None
        if registrar is not None:
            self._thread = threading.Thread(target=self._register_all, name="reprise-register", daemon=True)
            self._thread.start()

    def is_registered(self, offsets: npt.NDArray[np.int64]) -> bool:
        """Whether the extents of all these offsets are registered. Those that are not are asked for."""
        extents = np.unique(offsets // EXTENT_BYTES)
        missing = extents[~self.registered[extents]]
        if missing.size == 0:
            return True
        if self._thread is not None:
            with self._wake:
                self._wanted.update(int(extent) for extent in missing)
                self._wake.notify()
        return False

    def wait_registered(self, seconds: float) -> bool:
        """For benches: waits until everything is registered."""
        deadline = time.monotonic() + seconds
        while not bool(self.registered[: self._ahead].all()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return bool(self.registered[: self._ahead].all())

    def close(self) -> None:
        """Ends the mapping. The caller has made sure that no copy is under way."""
        with self._wake:
            if self._closed:
                return
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        if self._registrar is not None:
            for extent in np.flatnonzero(self.registered):
                self._registrar.unregister(self.address + int(extent) * EXTENT_BYTES)
        self.view = np.empty(0, dtype=np.uint8)
        with contextlib.suppress(BufferError):  # somebody holds a view: the mapping ends with it
            self._map.close()
        os.close(self._file)

    def _register_all(self) -> None:
        registrar = self._registrar
        assert registrar is not None
        try:
            registrar.enter_thread()
            for extent in range(self._ahead):
                if self._closed or not self._register(registrar, extent):
                    break
            self.is_registering = False
            while (extent_or_none := self._next_wanted()) is not None:
                self._register(registrar, extent_or_none)
        except Exception:  # a thread of a cache must not take the engine's log by storm
            self.is_registering = False
            log.warning("the memory pool is registered in part only: copies beyond are slower", exc_info=True)

    def _next_wanted(self) -> int | None:
        """Waits for an extent that a job asked for; None when the map is closed."""
        with self._wake:
            while True:
                if self._closed:
                    return None
                now = time.monotonic()
                self._wanted = {extent for extent in self._wanted if self._refused.get(extent, 0.0) <= now}
                if self._wanted:
                    return self._wanted.pop()
                self._wake.wait()

    def _register(self, registrar: Registrar, extent: int) -> bool:
        if self.registered[extent]:
            return True
        start = extent * EXTENT_BYTES
        size = min(EXTENT_BYTES, self.bytes - start)
        holes = self._hole_bytes(start, size)
        if holes and self._free_bytes(self._file) < holes + RESERVE_BYTES:
            self._refused[extent] = time.monotonic() + RETRY_SECONDS
            log.debug("extent %d of the memory pool is not registered: it has no pages, and there is no room", extent)
            return False
        code = registrar.register(self.address + start, size)
        if code == 0:
            self.registered[extent] = True
            return True
        self._refused[extent] = time.monotonic() + RETRY_SECONDS
        if not self.registered.any():
            log.warning(
                "the memory pool cannot be registered with the device (error %d): copies are correct, but slow, "
                "and they hold up the engine; raise the limit on locked memory (ulimit -l, or the container's)",
                code,
            )
        return False

    def _hole_bytes(self, start: int, size: int) -> int:
        """Bytes from `start` that have no pages. Registering them would allocate them."""
        holes, at, end = 0, start, start + size
        while at < end:
            try:
                data = min(end, os.lseek(self._file, at, os.SEEK_DATA))
            except OSError:  # ENXIO: no data from here on
                data = end
            holes += data - at
            at = min(end, os.lseek(self._file, data, os.SEEK_HOLE)) if data < end else end
        return holes


def _free_bytes(file: int) -> int:
    room = os.fstatvfs(file)
    return room.f_bavail * room.f_frsize
