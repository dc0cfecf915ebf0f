"""From chunks and blocks to transfer jobs: the arithmetic between tokens, chunks and engine blocks, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reprise.protocol import LoadedChunk, ReservedChunk
from reprise_vllm.plan import JobId, LoadJob, SaveJob


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes that all sides agree on."""

    #: Tokens of one of the engine's blocks.
    block_tokens: int
    #: Tokens of a chunk; a multiple of `block_tokens`.
    chunk_tokens: int
    #: Bytes of one block of one rank, all layers; of the largest rank where they differ.
    block_bytes: int
    #: Ranks that share a token's KV.
    ranks: int
    #: Tokens that one entry of vLLM's `Request.block_hashes` stands for.
    hash_tokens: int

    @property
    def slot_bytes(self) -> int:
        """Payload of a full chunk of one rank."""
        return self.chunk_tokens // self.block_tokens * self.block_bytes

    def whole_blocks(self, tokens: int) -> int:
        """The largest multiple of a block's tokens that is at most `tokens`."""
        return tokens // self.block_tokens * self.block_tokens

    def whole_chunks(self, tokens: int) -> int:
        return tokens // self.chunk_tokens * self.chunk_tokens


def usable_end(geometry: Geometry, chunks: Sequence[LoadedChunk], begin: int, limit: int) -> int:
    """Where what `chunks`, in order, bring from token `begin` on ends: whole blocks, at most `limit`."""
    end = begin
    for chunk in chunks:
        last = geometry.whole_blocks(min(chunk.first_token + chunk.matched_tokens, limit))
        if chunk.first_token > end or last <= end or chunk.token_count % geometry.block_tokens != 0:
            break
        end = last
    return end


def load_job(
    geometry: Geometry,
    chunks: Sequence[Sequence[LoadedChunk]],
    *,
    job_id: JobId,
    request_id: str,
    epoch: int,
    begin: int,
    end: int,
    block_ids: npt.NDArray[np.int32],
    valid_until: float,
    in_step: bool,
) -> LoadJob:
    """`chunks`: [rank][chunk]; tokens `begin` to `end` of the text go into `block_ids`, the blocks of just these."""
    first = np.array([chunk.first_token for chunk in chunks[0]], np.int64)
    matched = np.array([chunk.matched_tokens for chunk in chunks[0]], np.int64)
    tokens = np.array([chunk.token_count for chunk in chunks[0]], np.int64)
    skip = (np.maximum(begin, first) - first) // geometry.block_tokens
    stop = (np.minimum(end, first + matched) - first) // geometry.block_tokens
    return LoadJob(
        job_id=job_id,
        request_id=request_id,
        epoch=epoch,
        slot_offsets=np.array([[chunk.offset for chunk in ours] for ours in chunks], np.int64),
        chunk_blocks=(tokens // geometry.block_tokens).astype(np.int32),
        skip_blocks=skip.astype(np.int32),
        take_blocks=(stop - skip).astype(np.int32),
        block_ids=block_ids,
        old_positions=first,
        new_positions=first,
        valid_until=valid_until,
        in_step=in_step,
    )


def save_job(
    geometry: Geometry,
    chunks: Sequence[Sequence[ReservedChunk]],
    *,
    job_id: JobId,
    request_id: str,
    epoch: int,
    blocks: Sequence[int],
    valid_until: float,
) -> SaveJob:
    """`chunks`: [rank][chunk]; `blocks`: the engine's blocks of the whole text."""
    first = np.array([chunk.first_token for chunk in chunks[0]], np.int64)
    count = np.array([chunk.token_count for chunk in chunks[0]], np.int64) // geometry.block_tokens
    begin = first // geometry.block_tokens
    of_text = np.fromiter(blocks, np.int32, len(blocks))
    # Block k of all that are moved: its chunk's first block, and its place within the chunk.
    starts = np.repeat(begin - np.cumsum(count) + count, count)
    return SaveJob(
        job_id=job_id,
        request_id=request_id,
        epoch=epoch,
        slot_offsets=np.array([[chunk.offset for chunk in ours] for ours in chunks], np.int64),
        chunk_blocks=count.astype(np.int32),
        skip_blocks=np.zeros(len(first), np.int32),
        take_blocks=count.astype(np.int32),
        block_ids=of_text[starts + np.arange(int(count.sum()))],
        old_positions=first,
        new_positions=first,
        valid_until=valid_until,
    )
