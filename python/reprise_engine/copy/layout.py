"""Where the bytes of one engine block lie, whatever shape the engine gave its KV cache.

A *segment* is one contiguous run of bytes of a block, seen over all blocks: block b has it at `base + b * stride`. A
layer whose K and V lie apart has two segments, one whose heads lie outside the blocks has one per head. Everything that
copies knows segments only; axes are looked at here and nowhere else. The payload of a chunk with n blocks is
segment-major, so that a layer's bytes lie together:

    payload     segment 0: block 0, 1 … n-1 │ segment 1: block 0, 1 … n-1 │ …
    offset      of block i in segment s:  n * starts[s] + i * runs[s]
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

#: CUDA launches no more programs on that axis; and such a cache would be faster computed than copied.
MAX_SEGMENTS = 65_535


class LayoutError(ValueError):
    """The KV cache has a shape that cannot be read without guessing."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """All segments of a KV cache, in payload order. Addresses, strides, runs and starts are bytes."""

    bases: npt.NDArray[np.int64]
    strides: npt.NDArray[np.int64]
    runs: npt.NDArray[np.int64]
    #: Where each segment begins in the payload of one block.
    starts: npt.NDArray[np.int64]
    #: The tensor that owns each segment's memory; they stay alive as long as the layout.
    owners: tuple[torch.Tensor, ...]
    num_blocks: int
    block_tokens: int
    #: Equal for two caches exactly when a payload means the same in both. Holds no address and no number of blocks.
    signature: str
    #: The segments of each layer: [begin, end). A layer that uses another's KV has that one's.
    layers: Mapping[str, tuple[int, int]]

    @property
    def block_bytes(self) -> int:
        return int(self.runs.sum())

    @property
    def device(self) -> torch.device:
        return self.owners[0].device

    @property
    def alignment(self) -> int:
        """The largest power of two, at most 16, that divides every address, stride and run."""
        together = int(np.bitwise_or.reduce(np.concatenate((self.bases, self.strides, self.runs))))
        return next(size for size in (16, 8, 4, 2, 1) if together % size == 0)

    def payload_bytes(self, blocks: int) -> int:
        return blocks * self.block_bytes


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis other than the block axis. `step` is its stride in bytes, `place` its place in the logical shape."""

    size: int
    step: int
    place: str


def read_layout(kv_caches: Mapping[str, torch.Tensor], num_blocks: int, block_tokens: int) -> Layout:
    """Finds the segments of a KV cache, layer after layer as given, by address within a layer.

    @throws LayoutError when a block axis cannot be told, or layers share memory in part.
    """
    if not kv_caches:
        raise LayoutError("the engine registered no KV cache tensors: nothing can be stored")
    rows: list[tuple[int, int, int]] = []
    owners: list[torch.Tensor] = []
    meanings: list[str] = []
    names: list[str] = []
    seen: dict[tuple[int, int, int], int] = {}
    layers: dict[str, tuple[int, int]] = {}
    for name, tensor in kv_caches.items():
        if not hasattr(tensor, "data_ptr"):
            raise LayoutError(f"layer {name}: its cache is a {type(tensor).__name__}, not one tensor")
        segments, meaning = _segments_of(name, tensor, num_blocks, block_tokens)
        fresh = [segment for segment in segments if segment not in seen]
        if not fresh:  # a layer that uses another layer's KV
            numbers = [seen[segment] for segment in segments]
            layers[name] = (min(numbers), max(numbers) + 1)
            continue
        if len(fresh) != len(segments):
            raise LayoutError(f"layer {name}: it shares a part of its memory with another layer")
        layers[name] = (len(rows), len(rows) + len(fresh))
        seen.update((segment, len(rows) + i) for i, segment in enumerate(fresh))
        rows += fresh
        owners += [tensor] * len(fresh)
        meanings.append(meaning)
        names.append(name)
    if len({str(owner.device) for owner in owners}) > 1:
        raise LayoutError("the KV cache lies on more than one device")
    if len(rows) > MAX_SEGMENTS:
        raise LayoutError(f"a block consists of {len(rows)} separate runs of bytes: too many to copy")
    _must_be_apart(rows)
    table = np.array(rows, dtype=np.int64).T
    bases, strides, runs = (np.ascontiguousarray(row) for row in table)
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(runs)[:-1]))
    signature = _signature(block_tokens, names, meanings)
    return Layout(bases, strides, runs, starts, tuple(owners), num_blocks, block_tokens, signature, layers)


def _segments_of(
    name: str, tensor: torch.Tensor, num_blocks: int, block_tokens: int
) -> tuple[list[tuple[int, int, int]], str]:
    shape, item = tuple(tensor.shape), tensor.element_size()
    strides = tuple(int(stride) * item for stride in tensor.stride())
    block_axis, parts = _block_axis(name, shape, strides, item, num_blocks, block_tokens)
    # When the engine's kernels use smaller blocks, a block is `parts` of theirs, one behind the other.
    block_stride = strides[block_axis] * parts
    axes = [
        _Axis(size, step, str(i)) for i, (size, step) in enumerate(zip(shape, strides, strict=True)) if i != block_axis
    ]
    axes.append(_Axis(parts, strides[block_axis], "b"))
    axes = sorted((axis for axis in axes if axis.size > 1), key=lambda axis: axis.step)
    run = item
    outer: list[_Axis] = []
    for axis in axes:
        if axis.step < item:
            raise LayoutError(f"layer {name}: axis {axis.place} of {shape} repeats the same memory")
        if axis.step == run and not outer:
            run *= axis.size
        else:
            outer.append(axis)
    offsets = sorted(sum(steps) for steps in itertools.product(*(range(0, a.size * a.step, a.step) for a in outer)))
    base = tensor.data_ptr()
    logical = ",".join("B" if i == block_axis else str(size) for i, size in enumerate(shape))
    order = ">".join(f"{axis.place}" for axis in reversed(axes))
    dtype = str(tensor.dtype).removeprefix("torch.")
    meaning = f"{dtype}[{logical}] parts {parts} order {order} runs {len(offsets)}x{run}"
    return [(base + offset, block_stride, run) for offset in offsets], meaning


def _block_axis(
    name: str, shape: tuple[int, ...], strides: tuple[int, ...], item: int, num_blocks: int, block_tokens: int
) -> tuple[int, int]:
    """The block axis, and how many of its entries make one block. The innermost axis is never one."""
    outer = [axis for axis in range(len(shape)) if strides[axis] != item or shape[axis] == 1]
    exact = [axis for axis in outer if shape[axis] == num_blocks]
    finer = [
        axis
        for axis in outer
        if shape[axis] > num_blocks
        and shape[axis] % num_blocks == 0
        and block_tokens % (shape[axis] // num_blocks) == 0
    ]
    found = exact or finer
    if len(found) == 1:
        return found[0], shape[found[0]] // num_blocks
    what = "no axis counts" if not found else f"axes {found} all count"
    raise LayoutError(
        f"layer {name}: {what} {num_blocks} blocks of {block_tokens} tokens in shape {shape}, strides (bytes) {strides}"
        + ("; set another number of blocks" if found else "")
    )


def _must_be_apart(rows: list[tuple[int, int, int]]) -> None:
    """Two segments that overlap in block 0 would overwrite each other when loaded."""
    spans = sorted((base, base + run) for base, _, run in rows)
    for (_, end), (begin, _) in itertools.pairwise(spans):
        if begin < end:
            raise LayoutError("two layers share a part of their memory: their blocks cannot be copied one by one")


def _signature(block_tokens: int, names: list[str], meanings: list[str]) -> str:
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    groups = [f"{len(list(same))}*({meaning})" for meaning, same in itertools.groupby(meanings)]
    return f"segments/1 block {block_tokens} layers {digest} {' '.join(groups)}"
