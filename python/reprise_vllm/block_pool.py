"""Block refs in vLLM's own pool of blocks.

vLLM's own way keeps all blocks of a request until its saves are over. With its block pool at hand only those that are
being saved are kept: vLLM counts who uses a block, and we are one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class BlockPoolRefs:
    """@throws AttributeError when vLLM's pool is not the one that is known."""

    def __init__(self, pool: Any) -> None:
        self._blocks = pool.blocks
        self._free_blocks = pool.free_blocks
        self._count_free = pool.get_num_free_blocks
        if not isinstance(self._blocks[0].ref_cnt, int):
            raise AttributeError("the blocks of vLLM's pool are not counted")

    @property
    def pool_is_empty(self) -> bool:
        """No block is in use by anybody: vLLM empties its own prefix cache only then."""
        return bool(self._count_free() == len(self._blocks) - 1)  # one is vLLM's own

    def hold(self, block_ids: Sequence[int]) -> None:
        blocks = [self._blocks[block_id] for block_id in block_ids]
        if any(block.ref_cnt < 1 for block in blocks):
            raise RuntimeError("blocks to be saved are nobody's any more")
        for block in blocks:
            block.ref_cnt += 1  # as BlockPool.touch does for blocks in use

    def release(self, block_ids: Sequence[int]) -> None:
        # The end of a text first: vLLM reuses it before what comes earlier.
        self._free_blocks([self._blocks[block_id] for block_id in reversed(block_ids)])
