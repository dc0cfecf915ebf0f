"""Cuts a job into pieces that fit the staging ring, with numpy: nothing here loops over blocks or chunks.

    job      chunk │ chunk │ chunk │ chunk │ chunk          payloads, wherever their slots lie
    pieces   └── piece 0 ──┘└─ piece 1 ────┘└─ …            each fits a place of the ring; payloads one behind the other
    copies   ══ slots 7,8 ══ ═ 3 ═ ═ 4,5 ═  …               neighbours in the pool and in the piece: one copy

Places of the ring are taken in turn, so all staging addresses are known before the first copy is enqueued. A load
may be cut by layers first: all chunks' bytes of the first group of segments, then all those of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reprise_engine.copy.copier import EXTENT_BYTES, JobError

if TYPE_CHECKING:
    from reprise_engine.copy.layout import Layout
    from reprise_engine.plan import LoadJob, TransferJob

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ring:
    """A staging ring: `places` of `place_bytes` each, from `address`; `turn` counts the pieces that went through it."""

    address: int
    places: int
    place_bytes: int
    turn: int


@dataclass(frozen=True, slots=True)
class Piece:
    #: Rows of the job's table, and copies of the job's list, that belong to this piece: [begin, end).
    rows: tuple[int, int]
    copies: tuple[int, int]
    #: Chunks in this piece. All have the same number of blocks.
    chunks: int
    chunk_blocks: int
    #: Some chunk is moved in part only.
    partial: bool
    #: The group of segments it brings, by number, and these segments: [begin, end).
    group: int
    segments: tuple[int, int]


@dataclass(frozen=True, slots=True)
class CutJob:
    pieces: list[Piece]
    #: [4, blocks moved]: engine block, address of its chunk in staging, blocks of its chunk, its place among them. The
    #: address is that of the payload's first byte, also where only a later group of its segments is in staging.
    table: Int64s
    #: [copies]: offset in the pool, address in staging, bytes.
    pool_offsets: Int64s
    staging: Int64s
    sizes: Int64s

    def begins_with(self, head: CutJob, pieces: int) -> bool:
        """Whether the first pieces are copied just as the first of `head` are."""
        if min(len(self.pieces), len(head.pieces)) < pieces:
            return False
        count = self.pieces[pieces - 1].copies[1]
        return head.pieces[pieces - 1].copies[1] == count and all(
            np.array_equal(mine[:count], theirs[:count])
            for mine, theirs in (
                (self.pool_offsets, head.pool_offsets),
                (self.staging, head.staging),
                (self.sizes, head.sizes),
            )
        )

    def into(self, block_ids: npt.NDArray[np.int32]) -> None:
        """Names the engine's blocks, which a prefetch does not know yet."""
        self.table[0] = np.tile(block_ids, self.table.shape[1] // max(1, block_ids.size))


def head_of(job: LoadJob, layout: Layout, ring: Ring, spans: Sequence[tuple[int, int]] | None) -> LoadJob:
    """The first chunks of a job: enough to fill all places of the ring, with the first of `spans` if there are any."""
    block_bytes = layout.block_bytes if spans is None or len(spans) == 1 else int(layout.starts[spans[0][1]])
    ends = np.cumsum(job.chunk_blocks.astype(np.int64) * block_bytes)
    # One place more, so that the last of them is cut as it will be with what follows it.
    chunks = int(np.searchsorted(ends, (ring.places + 1) * ring.place_bytes)) + 1
    return replace(
        job,
        slot_offsets=job.slot_offsets[:, :chunks],
        chunk_blocks=job.chunk_blocks[:chunks],
        skip_blocks=job.skip_blocks[:chunks],
        take_blocks=job.take_blocks[:chunks],
        block_ids=job.block_ids[: int(job.take_blocks[:chunks].sum())],
        old_positions=job.old_positions[:chunks],
        new_positions=job.new_positions[:chunks],
    )


def cut_job(
    job: TransferJob, rank: int, layout: Layout, ring: Ring, spans: Sequence[tuple[int, int]] | None = None
) -> CutJob:
    """`spans`: groups of segments, in order and complete; None: all of them at once.

    @throws JobError when a payload is larger than a place of the ring.
    """
    spans = [(0, int(layout.runs.size))] if spans is None else spans
    groups = len(spans)
    starts = np.append(layout.starts, layout.block_bytes)
    taken = job.take_blocks > 0
    count = job.chunk_blocks[taken].astype(np.int64)
    skip = job.skip_blocks[taken].astype(np.int64)
    take = job.take_blocks[taken].astype(np.int64)
    slots = job.slot_offsets[rank][taken].astype(np.int64)
    payload = count * layout.block_bytes
    if count.size and int(payload.max()) > ring.place_bytes:
        raise JobError(
            f"job {job.job_id}: a payload of {int(payload.max())} bytes exceeds a staging place of {ring.place_bytes}"
        )
    # From here on a chunk is what one group has of it.
    group = np.repeat(np.arange(groups), count.size)
    count, skip, take, slots = (np.tile(column, groups) for column in (count, skip, take, slots))
    before_span = count * starts[[begin for begin, _ in spans]][group]
    payload = count * (starts[[end for _, end in spans]] - starts[[begin for begin, _ in spans]])[group]
    slots = slots + before_span
    chunks = count.size

    ends = np.cumsum(payload)
    uniform_until = np.append(np.flatnonzero((np.diff(count) != 0) | (np.diff(group) != 0)) + 1, chunks)
    edges = [0]
    while edges[-1] < chunks:
        start = edges[-1]
        ahead = int(ends[start] - payload[start])
        fits = int(np.searchsorted(ends, ahead + ring.place_bytes, side="right"))
        edges.append(min(fits, int(uniform_until[np.searchsorted(uniform_until, start, side="right")])))
    bounds = np.array(edges, dtype=np.int64)
    pieces = len(edges) - 1
    piece_of = np.repeat(np.arange(pieces), np.diff(bounds))
    first_of = bounds[:-1][piece_of] if chunks else bounds[:0]
    places = ring.address + (ring.turn + piece_of) % ring.places * ring.place_bytes
    addresses = places + (np.arange(chunks) - first_of) * payload

    rows_end = np.cumsum(take)
    rows = int(rows_end[-1]) if chunks else 0
    table = np.empty((4, rows), dtype=np.int64)
    table[0] = np.tile(job.block_ids, groups)
    table[1] = np.repeat(addresses - before_span, take)
    table[2] = np.repeat(count, take)
    table[3] = np.arange(rows) - np.repeat(rows_end - take - skip, take)

    alone = np.ones(chunks, dtype=np.bool_)
    alone[1:] = (
        (slots[1:] != slots[:-1] + payload[:-1])
        | (piece_of[1:] != piece_of[:-1])
        | (slots[1:] // EXTENT_BYTES != slots[:-1] // EXTENT_BYTES)
    )
    heads = np.flatnonzero(alone)
    sizes = np.add.reduceat(payload, heads) if chunks else payload
    row_bounds = np.concatenate((np.zeros(1, np.int64), rows_end))[bounds]
    copy_bounds = np.searchsorted(heads, bounds)
    partial = np.add.reduceat((take != count).astype(np.int64), bounds[:-1]) if chunks else take
    cut = [
        Piece(
            (int(row_bounds[i]), int(row_bounds[i + 1])),
            (int(copy_bounds[i]), int(copy_bounds[i + 1])),
            edges[i + 1] - edges[i],
            int(count[edges[i]]),
            bool(partial[i]),
            int(group[edges[i]]),
            spans[int(group[edges[i]])],
        )
        for i in range(pieces)
    ]
    return CutJob(cut, table, slots[heads], addresses[heads], sizes)


def page_copies(job: TransferJob, rank: int, layout: Layout, pool_address: int) -> tuple[Int64s, Int64s, Int64s]:
    """The job as single pages, without staging: addresses in the pool, addresses in the KV cache, bytes."""
    count = job.chunk_blocks.astype(np.int64)
    take = job.take_blocks.astype(np.int64)
    rows_end = np.cumsum(take)
    index = np.arange(job.block_ids.size) - np.repeat(rows_end - take - job.skip_blocks, take)
    slot = np.repeat(job.slot_offsets[rank].astype(np.int64), take) + pool_address
    pool = (
        slot[None, :] + np.repeat(count, take)[None, :] * layout.starts[:, None] + index[None, :] * layout.runs[:, None]
    )
    engine = layout.bases[:, None] + job.block_ids.astype(np.int64)[None, :] * layout.strides[:, None]
    return pool.ravel(), engine.ravel(), np.repeat(layout.runs, job.block_ids.size)
