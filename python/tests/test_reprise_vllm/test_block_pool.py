"""The blocks that we keep, in vLLM's own pool."""

from __future__ import annotations

import pytest

from reprise_vllm.block_pool import BlockPoolRefs

block_pool = pytest.importorskip("vllm.v1.core.block_pool")


def test_kept_blocks_are_free_once_both_have_let_them_go() -> None:
    pool = block_pool.BlockPool(num_gpu_blocks=9, enable_caching=True, hash_block_size=16)
    refs = BlockPoolRefs(pool)
    before = pool.get_num_free_blocks()
    blocks = pool.get_new_blocks(5)
    kept = [block.block_id for block in blocks[3:]]
    refs.hold(kept)
    pool.free_blocks(reversed(blocks))
    assert pool.get_num_free_blocks() == before - 2
    others = pool.get_new_blocks(before - 2)
    assert not {block.block_id for block in others}.intersection(kept)
    pool.free_blocks(others)
    refs.release(kept)
    assert pool.get_num_free_blocks() == before


def test_blocks_that_nobody_uses_are_refused_and_none_is_kept() -> None:
    pool = block_pool.BlockPool(num_gpu_blocks=9, enable_caching=True, hash_block_size=16)
    before = pool.get_num_free_blocks()
    (block,) = pool.get_new_blocks(1)
    with pytest.raises(RuntimeError):
        BlockPoolRefs(pool).hold([block.block_id, block.block_id + 1])
    pool.free_blocks([block])
    assert pool.get_num_free_blocks() == before
