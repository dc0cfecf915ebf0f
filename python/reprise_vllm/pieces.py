"""Cuts a job into pieces that fit the staging ring, with numpy: nothing here loops over blocks or chunks.

    job      chunk │ chunk │ chunk │ chunk │ chunk          payloads, wherever their slots lie
    pieces   └── piece 0 ──┘└─ piece 1 ────┘└─ …            each fits a place of the ring; payloads one behind the other
    copies   ══ slots 7,8 ══ ═ 3 ═ ═ 4,5 ═  …               neighbours in the pool and in the piece: one copy

Places of the ring are taken in turn, so all staging addresses are known before the first copy is enqueued.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reprise_vllm.copier import EXTENT_BYTES, JobError

if TYPE_CHECKING:
    from reprise_vllm.layout import Layout
    from reprise_vllm.plan import TransferJob

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


@dataclass(frozen=True, slots=True)
class CutJob:
    pieces: list[Piece]
    #: [4, blocks moved]: engine block, address of its chunk in staging, blocks of its chunk, its place among them.
    table: Int64s
    #: [copies]: offset in the pool, address in staging, bytes.
    pool_offsets: Int64s
    staging: Int64s
    sizes: Int64s


def cut_job(job: TransferJob, rank: int, layout: Layout, ring: Ring) -> CutJob:
    """@throws JobError when a payload is larger than a place of the ring."""
    taken = job.take_blocks > 0
    count = job.chunk_blocks[taken].astype(np.int64)
    skip = job.skip_blocks[taken].astype(np.int64)
    take = job.take_blocks[taken].astype(np.int64)
    slots = job.slot_offsets[rank][taken].astype(np.int64)
    payload = count * layout.block_bytes
    chunks = count.size
    if chunks and int(payload.max()) > ring.place_bytes:
        raise JobError(
            f"job {job.job_id}: a payload of {int(payload.max())} bytes exceeds a staging place of {ring.place_bytes}"
        )

    ends = np.cumsum(payload)
    uniform_until = np.append(np.flatnonzero(np.diff(count)) + 1, chunks)
    edges = [0]
    while edges[-1] < chunks:
        start = edges[-1]
        before = int(ends[start] - payload[start])
        fits = int(np.searchsorted(ends, before + ring.place_bytes, side="right"))
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
    table[0] = job.block_ids
    table[1] = np.repeat(addresses, take)
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
