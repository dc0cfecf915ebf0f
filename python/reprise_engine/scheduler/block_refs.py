"""Block refs: what keeps an ended request's blocks while they are still being copied out, block by block.

An engine counts who uses a block, and we are one of them where it lets us. Where it does not, it keeps all blocks of a
request until its saves are over, and a full KV cache then lets nobody in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class BlockRefs(Protocol):
    def hold(self, block_ids: Sequence[int]) -> None:
        """Keeps blocks that somebody uses now. All of them, or it raises."""

    def release(self, block_ids: Sequence[int]) -> None:
        """Gives them back."""
