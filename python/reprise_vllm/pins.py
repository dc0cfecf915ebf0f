"""Blocks of ended requests that are still being copied out, kept block by block.

vLLM's own way keeps all blocks of a request until its saves are over, and a full KV cache then lets nobody in. With its
block pool at hand only those that are being saved are kept: vLLM counts who uses a block, and we are one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class BlockPins(Protocol):
    def hold(self, block_ids: Sequence[int]) -> None:
        """Keeps blocks that somebody uses now. All of them, or it raises."""

    def release(self, block_ids: Sequence[int]) -> None:
        """Gives them back."""


class PoolPins:
    """@throws AttributeError when vLLM's pool is not the one that is known."""

    def __init__(self, pool: Any) -> None:
        self._blocks = pool.blocks
        self._free_blocks = pool.free_blocks
        if not isinstance(self._blocks[0].ref_cnt, int):
            raise AttributeError("the blocks of vLLM's pool are not counted")

    def hold(self, block_ids: Sequence[int]) -> None:
        blocks = [self._blocks[block_id] for block_id in block_ids]
        if any(block.ref_cnt < 1 for block in blocks):
            raise RuntimeError("blocks to be saved are nobody's any more")
        for block in blocks:
            block.ref_cnt += 1  # as BlockPool.touch does for blocks in use

    def release(self, block_ids: Sequence[int]) -> None:
        # The end of a text first: vLLM reuses it before what comes earlier.
        self._free_blocks([self._blocks[block_id] for block_id in reversed(block_ids)])
