"""A guest's view of the cache's memory pool: the pool's file, mapped.

The cache and every guest on the host map the same file, so a payload moves once: engine memory <-> slot. The file's
length is checked before it is mapped, so that touching a slot can never be a bus error; a pool whose cache has ended
keeps its memory until the last guest has unmapped it.
"""

import ctypes
import mmap
import os

from reprise.errors import RepriseError
from reprise.private_files import open_private


class Pool:
    """The pool at `path`, whose length the cache has announced as `pool_bytes`.

    Raises RepriseError CACHE_UNAVAILABLE when the file is gone (its cache ended), another user's,
    or shorter than announced.
    """

    def __init__(self, path: str, pool_bytes: int) -> None:
        self.path = path
        self.bytes = pool_bytes
        try:
            file = open_private(path, os.O_RDWR)
        except OSError as error:
            raise RepriseError("CACHE_UNAVAILABLE", f"the memory pool {path} cannot be opened: {error}") from error
        try:
            size = os.fstat(file).st_size
            if size < pool_bytes or pool_bytes == 0:
                raise RepriseError(
                    "CACHE_UNAVAILABLE", f"the memory pool {path} has {size} bytes; {pool_bytes} were announced"
                )
            self._map = mmap.mmap(file, pool_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        finally:
            os.close(file)
        self._view = memoryview(self._map)

    @property
    def address(self) -> int:
        """Where the mapping begins in this process, for native copies. Valid until `close`."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def slot(self, offset: int, slot_bytes: int) -> memoryview:
        """The bytes of a slot, in place: what is written here is what the cache and every guest see.

        Raises ValueError when they are not within the pool, or the pool is closed.
        """
        if offset < 0 or slot_bytes < 0 or offset + slot_bytes > self.bytes:
            raise ValueError(f"a slot at {offset} of {slot_bytes} bytes is not within the pool of {self.bytes} bytes")
        return self._view[offset : offset + slot_bytes]

    def close(self) -> None:
        """Ends the view. The memory is unmapped when the last array or memoryview over it is gone."""
        self._view.release()
        try:
            self._map.close()
        except BufferError:
            return  # arrays over it live on; the mapping goes with the last of them
