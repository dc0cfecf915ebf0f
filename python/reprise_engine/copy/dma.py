"""Copies between host and device memory by address, straight to the driver: CUDA's or ROCm's.

One call enqueues any number of copies on a stream. torch would take a tensor, a slice and a dispatch for each; here
the addresses are numpy arrays, and a batch is one driver call where the driver has it (cuMemcpyBatchAsync, CUDA 12.8).
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
#: Below this many copies a loop of single calls costs less than setting up a batch.
BATCH_FROM = 3
#: CUmemcpySrcAccessOrder: sources may be read ahead of the stream only where nobody writes them, as with leased slots.
IN_STREAM_ORDER, ANY_ORDER = 1, 3


class DmaError(RuntimeError):
    """The driver refused a copy."""


class _Attributes(ctypes.Structure):
    """CUmemcpyAttributes: access order, two location hints that are not used here, flags."""

    _fields_ = (
        ("order", ctypes.c_uint),
        ("source_hint", ctypes.c_int * 2),
        ("target_hint", ctypes.c_int * 2),
        ("flags", ctypes.c_uint),
    )


class Dma:
    """@throws OSError when the driver's library is not there."""

    def __init__(self, *, rocm: bool) -> None:
        self._batch: Any = None
        if rocm:
            library = ctypes.CDLL("libamdhip64.so")
            one: Any = library.hipMemcpyAsync
            one.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
            one.restype = ctypes.c_int
            self._one: Any = lambda target, source, size, stream: one(target, source, size, 4, stream)  # 4: by address
            self._fill: Any = library.hipMemsetD8Async
            self._fill.argtypes = (ctypes.c_void_p, ctypes.c_ubyte, ctypes.c_size_t, ctypes.c_void_p)
            self._fill.restype = ctypes.c_int
            return
        library = ctypes.CDLL("libcuda.so.1")
        self._one = library.cuMemcpyAsync
        self._one.argtypes = (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p)
        self._one.restype = ctypes.c_int
        self._fill = library.cuMemsetD8Async
        self._fill.argtypes = (ctypes.c_uint64, ctypes.c_ubyte, ctypes.c_size_t, ctypes.c_void_p)
        self._fill.restype = ctypes.c_int
        found = ctypes.c_void_p()
        try:
            # By version, since the signature of this name changes with CUDA 13.
            code = library.cuGetProcAddress_v2(
                b"cuMemcpyBatchAsync", ctypes.byref(found), 12080, ctypes.c_uint64(0), None
            )
        except AttributeError:  # a driver older than CUDA 12
            return
        if code == 0 and found.value:
            size_t, address = ctypes.c_size_t, ctypes.c_void_p
            prototype = ctypes.CFUNCTYPE(
                ctypes.c_int, address, address, address, size_t, address, address, size_t, address, address
            )
            self._batch = prototype(found.value)

    @property
    def has_batches(self) -> bool:
        return self._batch is not None

    def copy(self, targets: Int64s, sources: Int64s, sizes: Int64s, stream: int, *, order: int, batch: bool) -> None:
        """Enqueues the copies. `batch` must be False when some host memory is not registered.

        @throws DmaError when the driver refuses one.
        """
        count = sizes.size
        if batch and self._batch is not None and count >= BATCH_FROM:
            attributes = _Attributes(order=order)
            columns = [np.ascontiguousarray(column, dtype=np.int64) for column in (targets, sources, sizes)]
            which, failed = ctypes.c_size_t(0), ctypes.c_size_t(0)
            code = self._batch(
                *(column.ctypes.data for column in columns),
                count,
                ctypes.addressof(attributes),
                ctypes.addressof(which),
                1,
                ctypes.addressof(failed),
                stream,
            )
            if code != 0:
                raise DmaError(f"the driver refused a batch of {count} copies: error {code} at copy {failed.value}")
            return
        for target, source, size in zip(targets.tolist(), sources.tolist(), sizes.tolist(), strict=True):
            code = self._one(target, source, size, stream)
            if code != 0:
                raise DmaError(f"the driver refused a copy of {size} bytes: error {code}")

    def clear(self, address: int, size: int, stream: int) -> None:
        """Enqueues that device memory becomes zero.

        @throws DmaError when the driver refuses.
        """
        code = self._fill(address, 0, size, stream)
        if code != 0:
            raise DmaError(f"the driver refused to clear {size} bytes: error {code}")
