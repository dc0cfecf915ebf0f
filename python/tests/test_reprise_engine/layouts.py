"""KV caches in the shapes that engines give them, for the tests: layouts by name, and the plain twin of a copy."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

Caches = dict[str, torch.Tensor]


def _layers(count: int, make: Callable[[], torch.Tensor]) -> Caches:
    return {f"model.layers.{i}.attn": make() for i in range(count)}


def flash(
    nb: int, layers: int = 3, bs: int = 16, h: int = 2, d: int = 8, dtype: torch.dtype = torch.bfloat16
) -> Caches:
    return _layers(layers, lambda: torch.zeros(2, nb, bs, h, d, dtype=dtype))


def flashinfer(nb: int, layers: int = 3, bs: int = 16, h: int = 2, d: int = 8) -> Caches:
    return _layers(layers, lambda: torch.zeros(nb, 2, bs, h, d, dtype=torch.float16))


def flashinfer_hnd(nb: int, layers: int = 2, bs: int = 16, h: int = 2, d: int = 8) -> Caches:
    return _layers(layers, lambda: torch.zeros(nb, 2, h, bs, d, dtype=torch.float16).permute(0, 1, 3, 2, 4))


def mla(nb: int, layers: int = 3, bs: int = 16, content: int = 36) -> Caches:
    return _layers(layers, lambda: torch.zeros(nb, bs, content, dtype=torch.bfloat16))


def mla_odd(nb: int, layers: int = 2, bs: int = 16, content: int = 37) -> Caches:
    return _layers(layers, lambda: torch.zeros(nb, bs, content, dtype=torch.uint8))


def cpu_attention(nb: int, layers: int = 2, bs: int = 16, h: int = 2, d: int = 8) -> Caches:
    return _layers(layers, lambda: torch.zeros(2, nb, h, bs, d, dtype=torch.float32))


def packed_nhd(nb: int, layers: int = 3, bs: int = 16, h: int = 4, d: int = 16) -> Caches:
    """(NB, H, BS, 2D) over memory [B, N, H, C]: vLLM 0.26's FlashAttention."""
    return _layers(layers, lambda: torch.zeros(nb, bs, h, d, dtype=torch.bfloat16).permute(0, 2, 1, 3))


def heads_outside(nb: int, layers: int = 2, bs: int = 16, h: int = 4, d: int = 16) -> Caches:
    """LHBNC."""
    return _layers(layers, lambda: torch.zeros(h, nb, bs, d, dtype=torch.bfloat16).permute(1, 0, 2, 3))


def cross_layer(nb: int, layers: int = 3, bs: int = 16, h: int = 2, d: int = 8) -> Caches:
    """BLHNC: per-layer views of one buffer."""
    shared = torch.zeros(nb, layers, h, bs, d, dtype=torch.bfloat16)
    return {f"model.layers.{i}.attn": shared[:, i] for i in range(layers)}


def heads_then_layers(nb: int, layers: int = 3, bs: int = 16, h: int = 2, d: int = 8) -> Caches:
    """BHLNC, behind an offset into its storage."""
    shared = torch.zeros(nb * h * layers * bs * d + 64, dtype=torch.bfloat16)[64:].view(nb, h, layers, bs, d)
    return {f"model.layers.{i}.attn": shared[:, :, i] for i in range(layers)}


def smaller_kernel_blocks(nb: int, layers: int = 2, bs: int = 16, h: int = 2, d: int = 8) -> Caches:
    """The kernel's blocks are half of the scheduler's."""
    return _layers(layers, lambda: torch.zeros(2, nb * 2, bs // 2, h, d, dtype=torch.bfloat16))


def shared_kv(nb: int) -> Caches:
    caches = flash(nb, layers=2)
    return {**caches, "model.layers.2.attn": caches["model.layers.0.attn"]}


ALL: dict[str, Callable[[int], Caches]] = {
    made.__name__: made
    for made in (
        flash,
        flashinfer,
        flashinfer_hnd,
        mla,
        mla_odd,
        cpu_attention,
        packed_nhd,
        heads_outside,
        cross_layer,
        heads_then_layers,
        smaller_kernel_blocks,
        shared_kv,
    )
}
BLOCK_TOKENS = 16


def fill(caches: Caches, seed: int) -> None:
    """Random bytes through the views themselves."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in caches.values():
        noise = torch.randint(0, 256, (tensor.numel() * tensor.element_size(),), dtype=torch.uint8, generator=generator)
        tensor.copy_(noise.view(tensor.dtype).view(tensor.shape))


def plain_block(caches: Caches, num_blocks: int, block: int) -> list[bytes]:
    """The plain twin: each run of one block, element by element in the order of addresses, as a list of runs.

    Finds runs with none of the code under test: it walks every element's address.
    """
    runs: list[bytes] = []
    seen: set[int] = set()
    for tensor in caches.values():
        if tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        axis = next(i for i, size in enumerate(tensor.shape) if size % num_blocks == 0 and tensor.stride(i) != 1)
        parts = tensor.shape[axis] // num_blocks
        part = tensor.narrow(axis, block * parts, parts)
        item = tensor.element_size()
        index = itertools.product(*(range(size) for size in part.shape))
        offsets = sorted(sum(i * s for i, s in zip(at, part.stride(), strict=True)) * item for at in index)
        storage = ctypes.string_at(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        first = part.storage_offset() * item
        current = b""
        for at, before in zip(offsets, [None, *offsets], strict=False):
            if before is not None and at != before + item:
                runs.append(current)
                current = b""
            current += storage[first + at : first + at + item]
        runs.append(current)
    return runs


def plain_payload(caches: Caches, num_blocks: int, blocks: list[int]) -> npt.NDArray[np.uint8]:
    """Segment-major payload of these blocks."""
    columns = [plain_block(caches, num_blocks, block) for block in blocks]
    return np.frombuffer(b"".join(run for segment in zip(*columns, strict=True) for run in segment), dtype=np.uint8)
