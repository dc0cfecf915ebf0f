"""What a token's KV looks like to research code: an element type, a shape, and arrays over a slot's bytes.

A payload is token-major: the KV of a chunk's tokens one after the other, each `token_shape` elements of `dtype` in C
order. So the first rows of a payload are the KV of the first tokens, and a chunk can be cut anywhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from reprise.errors import RepriseError

if TYPE_CHECKING:
    import numpy
    import torch

#: Element types and their sizes in bytes.
DTYPE_BYTES: Final = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
}
#: NumPy knows no such types: their arrays are of raw bits.
_NUMPY_BITS: Final = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}


class TokenFormat:
    """`token_shape` elements of `dtype` per token. Raises RepriseError BAD_REQUEST for what cannot be stored."""

    def __init__(self, dtype: str, token_shape: tuple[int, ...]) -> None:
        if dtype not in DTYPE_BYTES:
            raise RepriseError("BAD_REQUEST", f"dtype {dtype!r} is not one of {', '.join(DTYPE_BYTES)}")
        if not token_shape or any(size < 1 for size in token_shape):
            raise RepriseError("BAD_REQUEST", f"token_shape {token_shape} must have sizes of 1 or more")
        self.dtype = dtype
        self.token_shape = token_shape
        self.token_bytes = DTYPE_BYTES[dtype] * math.prod(token_shape)

    def array(self, payload: memoryview, tokens: int) -> numpy.ndarray[Any, Any]:
        """The payload's first `tokens` tokens in place: shape [tokens, *token_shape], read-only."""
        import numpy as np

        kind = _NUMPY_BITS.get(self.dtype, self.dtype)
        array = np.frombuffer(payload[: tokens * self.token_bytes], dtype=kind).reshape(tokens, *self.token_shape)
        array.flags.writeable = False
        return array

    def tensor(self, payload: memoryview, tokens: int) -> torch.Tensor:
        """The same as a CPU tensor over the same memory. Not to be written to."""
        import torch

        rows = payload[: tokens * self.token_bytes]
        return torch.frombuffer(rows, dtype=getattr(torch, self.dtype)).view(tokens, *self.token_shape)

    def rows(self, kv: Any, tokens: int) -> memoryview:
        """The bytes of `kv`, an array of shape [tokens, *token_shape]: NumPy, torch (copied from a GPU), or a buffer.

        Raises RepriseError BAD_REQUEST when its shape, element type or length is another.
        """
        shape = getattr(kv, "shape", None)
        if shape is not None and tuple(shape) != (tokens, *self.token_shape) and not self._is_raw(kv):
            raise RepriseError("BAD_REQUEST", f"kv has shape {tuple(shape)}, not {(tokens, *self.token_shape)}")
        dtype = getattr(kv, "dtype", None)
        if dtype is not None and not self._is_raw(kv):
            name = str(dtype).removeprefix("torch.")
            if name not in (self.dtype, _NUMPY_BITS.get(self.dtype)):
                raise RepriseError("BAD_REQUEST", f"kv has elements of {name}, not {self.dtype}")
        view = memoryview(_host_bytes(kv))
        view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        if view.nbytes != tokens * self.token_bytes:
            raise RepriseError(
                "BAD_REQUEST",
                f"kv has {view.nbytes} bytes; {tokens} tokens of {self.dtype}{list(self.token_shape)} have "
                f"{tokens * self.token_bytes}",
            )
        return view

    @staticmethod
    def _is_raw(kv: Any) -> bool:
        return isinstance(kv, bytes | bytearray | memoryview)


def _host_bytes(kv: Any) -> Any:
    """`kv` as something with a buffer: torch tensors as bytes in host memory, others as they are."""
    if hasattr(kv, "detach") and hasattr(kv, "data_ptr"):
        import torch

        flat = kv.detach().contiguous().flatten().view(torch.uint8)
        try:
            return flat.cpu().numpy()
        except RuntimeError:  # NumPy is not installed, and without it torch shows nobody its memory
            copy = bytearray(flat.numel())
            torch.frombuffer(copy, dtype=torch.uint8).copy_(flat)
            return copy
    return kv
