"""Token ids as the wire and the keys have them: a run of u32, little-endian, in place."""

import sys
from array import array
from collections.abc import Iterable
from operator import index
from typing import TYPE_CHECKING, TypeAlias, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Whatever holds u32 in one piece: bytes, a memoryview, array("I"), a NumPy uint32 array …
TokenBuffer: TypeAlias = "Buffer"
#: The same, or any run of whole numbers.
TokenIds: TypeAlias = "Buffer | Iterable[int]"

token_bytes_each = 4
_u32_formats = ("I", "i", "L", "l")


def token_bytes(tokens: TokenBuffer) -> memoryview:
    """A view of the same memory as bytes.

    Raises TypeError unless `tokens` is one contiguous run of bytes that are u32 LE, or of 4-byte integers.
    """
    view = memoryview(tokens)
    is_run = view.c_contiguous and view.nbytes % token_bytes_each == 0
    if not is_run or not (view.format == "B" or (view.format in _u32_formats and view.itemsize == token_bytes_each)):
        raise TypeError("tokens must be one contiguous run of u32: bytes, array('I') or a uint32 array")
    return view.cast("B") if view.nbytes > 0 else memoryview(b"")


def pack_tokens(tokens: TokenIds) -> memoryview:
    """Like `token_bytes`, and also takes any iterable of integers (a list, a NumPy array of int64), which it copies.

    Raises TypeError or OverflowError for what is no token id: below 0, above 2**32 - 1, or no integer.
    """
    if isinstance(tokens, bytes | bytearray | memoryview | array) or _is_u32(tokens):
        return token_bytes(cast("Buffer", tokens))
    packed = array("I", map(index, cast("Iterable[int]", tokens)))
    if sys.byteorder != "little":
        packed.byteswap()
    return token_bytes(packed)


def _is_u32(tokens: object) -> bool:
    try:
        view = memoryview(tokens)  # type: ignore[arg-type]
    except TypeError:
        return False
    return view.itemsize == token_bytes_each and view.c_contiguous and view.format in _u32_formats
