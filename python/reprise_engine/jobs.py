"""From chunks and blocks to transfer jobs: the arithmetic between tokens, chunks and engine blocks, in one place."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from reprise.rows import LoadedPart, ReservedPart
from reprise_engine.plan import JobId, LoadJob, SaveJob


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
    #: Tokens that one entry of a request's `block_hashes` stands for.
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


def usable_end(geometry: Geometry, chunks: Sequence[LoadedPart], begin: int, limit: int) -> int:
    """Where what `chunks`, in order, bring from token `begin` on ends: whole blocks, at most `limit`.

    Ends where moved text begins: it is computed, since what follows it would be approximate.
    """
    end, block_tokens = begin, geometry.block_tokens
    for chunk in chunks:  # without calls: a request waits for this
        first = chunk.target
        last = first + chunk.take
        if last > limit:  # noqa: PLR1730 (min would be a call)
            last = limit
        last -= last % block_tokens
        if chunk.kind_number != 0 or first > end or last <= end or chunk.token_count % block_tokens != 0:
            break
        end = last
    return end


def chunks_before(chunks: Sequence[LoadedPart], end: int) -> int:
    """How many of `chunks`, in order, begin before token `end`."""
    return bisect_left(chunks, end, key=attrgetter("target"))


def load_job(
    geometry: Geometry,
    chunks: Sequence[Sequence[LoadedPart]],
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
    target = np.array([chunk.target for chunk in chunks[0]], np.int64)
    before = np.array([chunk.skip for chunk in chunks[0]], np.int64)
    take = np.array([chunk.take for chunk in chunks[0]], np.int64)
    tokens = np.array([chunk.token_count for chunk in chunks[0]], np.int64)
    skip = (before + np.maximum(begin, target) - target) // geometry.block_tokens
    stop = (before + np.minimum(end, target + take) - target) // geometry.block_tokens
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
        new_positions=target - before,
        valid_until=valid_until,
        in_step=in_step,
    )


def save_job(
    geometry: Geometry,
    texts: Sequence[tuple[Sequence[Sequence[ReservedPart]], Sequence[int]]],
    *,
    job_id: JobId,
    epoch: int,
    valid_until: float,
) -> SaveJob:
    """`texts`: of each, the chunks to save, [rank][chunk], and the engine's blocks of the whole text."""
    chunks = [chunk for of_text, _ in texts for chunk in of_text[0]]
    first = np.array([chunk.first_token for chunk in chunks], np.int64)
    count = np.array([chunk.token_count for chunk in chunks], np.int64) // geometry.block_tokens
    offsets = [[chunk.offset for of_text, _ in texts for chunk in of_text[rank]] for rank in range(len(texts[0][0]))]
    lengths = [len(blocks) for _, blocks in texts]
    of_texts = np.fromiter(chain.from_iterable(blocks for _, blocks in texts), np.int32, sum(lengths))
    # Where each text's blocks begin among those of all, once for each of its chunks.
    base = np.repeat(np.cumsum(lengths) - lengths, [len(of_text[0]) for of_text, _ in texts])
    begin = first // geometry.block_tokens + base
    # Chunks of one size stand together, so that they are gathered together.
    order = np.argsort(-count, kind="stable")
    first, count, begin = first[order], count[order], begin[order]
    # Block k of all that are moved: its chunk's first block, and its place within the chunk.
    starts = np.repeat(begin - np.cumsum(count) + count, count)
    return SaveJob(
        job_id=job_id,
        epoch=epoch,
        slot_offsets=np.array(offsets, np.int64)[:, order],
        chunk_blocks=count.astype(np.int32),
        skip_blocks=np.zeros(len(first), np.int32),
        take_blocks=count.astype(np.int32),
        block_ids=of_texts[starts + np.arange(int(count.sum()))],
        old_positions=first,
        new_positions=first,
        valid_until=valid_until,
    )
