"""Copies for KV caches on a GPU (CUDA, ROCm), through staging on the device, so that the link sees large copies only.

    load   pool ══ link stream ══► staging place ── kernel stream ──► blocks      kernel waits for the compute stream
    save   blocks ── kernel stream ──► staging place ══ link stream ══► pool      as it stood when the job was enqueued

Each direction has two streams and a ring of its own. The link fills (or drains) one place while the kernel works on the
others; when all are taken the streams wait for each other, never the CPU. Events order everything:

    place.linked   recorded on the link stream:   the place holds what was loaded / has been copied out
    place.moved    recorded on the kernel stream: the place has been scattered
    lane.pause()   before each copy out:          the place has been gathered, and other streams have had their turn

A load that is expected can be *prefetched*: its first pieces go to staging before it has blocks. The load then finds
the same copies under way at the same addresses, or it makes all of them anew: prefetched places are places of the ring
like others, and whoever comes next on the link stream overwrites them in order.

Beside it stands a second method, pages: one batch of small copies straight between pool and blocks. A probe at start
takes the faster one for this layout and link.
"""

# torch.cuda has no annotations in some releases.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from reprise_engine.copy.copier import check_job
from reprise_engine.copy.dma import ANY_ORDER, IN_STREAM_ORDER, Dma
from reprise_engine.copy.lane import MAX_PLACE_BYTES, CudaHandle, Prefetched, open_lanes, whole_or_drained
from reprise_engine.copy.layers import LayerGroups, LayerWaits, group_layers
from reprise_engine.copy.mover import Mover
from reprise_engine.copy.pieces import CutJob, Int64s, Piece, cut_job, head_of, page_copies

if TYPE_CHECKING:
    from reprise_engine.copy.copier import Handle, PoolView
    from reprise_engine.copy.layout import Layout
    from reprise_engine.plan import LoadJob, SaveJob, TransferJob


class CudaCopier:
    """@throws RuntimeError, OSError when the device has no room for the ring, or the driver is not to be had."""

    def __init__(self, layout: Layout, staging_bytes: int, mover: Mover) -> None:
        self.facts: dict[str, float | str] = {}
        self._layout = layout
        self._device = layout.device
        with torch.cuda.device(self._device):
            self.dma = Dma(rocm=torch.version.hip is not None)
            self.mover = mover
            self.loads, self.saves = open_lanes(self._device, staging_bytes, self.dma)
        self._gathered: torch.cuda.Event | None = None
        #: The stream that the last step computed on.
        self._compute: int | None = None
        self.facts["mover"] = self.mover.name
        self.largest_payload_bytes = self.loads.ring().place_bytes
        self.facts["place_mib"] = self.largest_payload_bytes / (1 << 20)
        self.by_layers = False
        self._groups: dict[int, LayerGroups | None] = {}

    def prefetch(self, job: LoadJob, rank: int, pool: PoolView) -> CudaHandle | None:
        lane = self.loads
        idle = lane.prefetched is None and (lane.last is None or lane.last.done)
        if not idle or lane.method != "staged" or not pool.is_registered(_touched(job, rank)):
            return None
        check_job(job, rank, self._layout, pool.bytes)
        with torch.cuda.device(self._device), whole_or_drained(lane):
            return self._prefetch(job, rank, pool)

    def forget_prefetched(self) -> None:
        self.loads.prefetched = None

    def load(self, job: LoadJob, rank: int, pool: PoolView) -> CudaHandle:
        handle = self._load(job, rank, pool)
        if job.in_step:
            self.join(handle)
        return handle

    def load_ahead(self, job: LoadJob, rank: int, pool: PoolView) -> CudaHandle | None:
        # What is enqueued on another stream than the step's would not hold the copies back.
        if torch.cuda.current_stream(self._device).cuda_stream != self._compute:
            return None
        return self._load(job, rank, pool)

    def join(self, handle: Handle) -> None:
        assert isinstance(handle, CudaHandle)
        compute = self._compute_stream()
        if handle.layers is None:
            compute.wait_event(handle.event)

    def save(self, job: SaveJob, rank: int, pool: PoolView) -> CudaHandle:
        check_job(job, rank, self._layout, pool.bytes)
        with torch.cuda.device(self._device), whole_or_drained(self.saves):
            return self._save(job, rank, pool)

    def fence(self) -> None:
        if self._gathered is None:
            return
        if not self._gathered.query():
            self._compute_stream().wait_event(self._gathered)
        self._gathered = None

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # a context that is broken has nothing under way
            self.loads.close()
            self.saves.close()

    def _prefetch(self, job: LoadJob, rank: int, pool: PoolView) -> CudaHandle | None:
        lane = self.loads
        ring = lane.ring()
        groups = self._groups_of(job)
        spans = None if groups is None else groups.spans
        head, span = head_of(job, self._layout, ring, spans), None if spans is None else spans[:1]
        first = cut_job(head, rank, self._layout, ring, span)  # the link begins before all of a long job is cut
        pieces = first.pieces[: ring.places]
        if not pieces:
            return None
        sources = first.pool_offsets + pool.address
        for piece in pieces:
            self._bring(first, piece, sources, registered=True)
        handle = lane.end_on(lane.link)
        whole = cut_job(job, rank, self._layout, ring, spans)
        if whole.begins_with(first, len(pieces)):
            lane.prefetched = Prefetched(job, pool, groups, ring.turn, len(pieces), whole)
        return handle

    def _groups_of(self, job: LoadJob) -> LayerGroups | None:
        if not (self.by_layers and job.in_step) or job.chunk_blocks.size == 0:
            return None
        blocks = int(job.chunk_blocks.max())
        if blocks not in self._groups:
            self._groups[blocks] = group_layers(self._layout, blocks)
        return self._groups[blocks]

    def _load(self, job: LoadJob, rank: int, pool: PoolView) -> CudaHandle:
        check_job(job, rank, self._layout, pool.bytes)
        lane = self.loads
        with torch.cuda.device(self._device), whole_or_drained(lane):
            compute = torch.cuda.current_stream(self._device)
            registered = pool.is_registered(_touched(job, rank))
            if lane.method != "pages" or not registered:
                return self._load_staged(job, rank, pool, compute, registered=registered)
            self.forget_prefetched()
            # Straight into the blocks: nothing may come before the steps that still read them.
            lane.link.wait_stream(compute)
            in_pool, in_engine, sizes = page_copies(job, rank, self._layout, pool.address)
            self.dma.copy(in_engine, in_pool, sizes, lane.link.cuda_stream, order=ANY_ORDER, batch=True)
            handle = lane.end_on(lane.link)
            # Both methods may serve one lane: later kernels come after these copies.
            lane.kernel.wait_event(handle.event)
            return handle

    def _load_staged(
        self, job: LoadJob, rank: int, pool: PoolView, compute: torch.cuda.Stream, *, registered: bool
    ) -> CudaHandle:
        lane = self.loads
        groups = self._groups_of(job)
        cut, under_way = self._cut_load(job, rank, pool, groups)
        turn = lane.turn - under_way
        sources = cut.pool_offsets + pool.address
        arrived: list[torch.cuda.Event] = []
        with torch.cuda.stream(lane.kernel):
            lane.kernel.wait_stream(compute)
            table = self.mover.begin(cut, self._upload, to_engine=True)
            for number, piece in enumerate(cut.pieces):
                if number >= under_way:
                    self._bring(cut, piece, sources, registered=registered)
                place = (turn + number) % len(lane.places)
                lane.kernel.wait_event(lane.linked[place])
                self.mover.move(cut, piece, table, lane.places[place], to_engine=True)
                lane.moved[place].record(lane.kernel)
                if number + 1 == len(cut.pieces) or cut.pieces[number + 1].group != piece.group:
                    arrived.append(torch.cuda.Event())
                    arrived[-1].record(lane.kernel)
        if groups is None or len(arrived) != len(groups.spans):
            return lane.end_on(lane.kernel)
        return lane.end_on(lane.kernel, LayerWaits(groups, arrived, lambda: torch.cuda.current_stream(self._device)))

    def _cut_load(self, job: LoadJob, rank: int, pool: PoolView, groups: LayerGroups | None) -> tuple[CutJob, int]:
        """The job's pieces, and how many of the first are on their way already."""
        lane = self.loads
        early, lane.prefetched = lane.prefetched, None
        same = early is not None and early.job is job and early.pool is pool and early.groups is groups
        if early is not None and same and early.turn + early.pieces == lane.turn:
            early.cut.into(job.block_ids)
            return early.cut, early.pieces
        return cut_job(job, rank, self._layout, lane.ring(), None if groups is None else groups.spans), 0

    def _bring(self, cut: CutJob, piece: Piece, sources: Int64s, *, registered: bool) -> None:
        """Enqueues a piece's copies into the next place, once that is empty."""
        lane = self.loads
        place = lane.turn % len(lane.places)
        lane.turn += 1
        lane.link.wait_event(lane.moved[place])
        part = slice(*piece.copies)
        self.dma.copy(
            cut.staging[part],
            sources[part],
            cut.sizes[part],
            lane.link.cuda_stream,
            order=IN_STREAM_ORDER,  # the place must be empty first; slots would allow any order
            batch=registered,
        )
        lane.linked[place].record(lane.link)

    def _save(self, job: SaveJob, rank: int, pool: PoolView) -> CudaHandle:
        lane, compute = self.saves, self._compute_stream()
        registered = pool.is_registered(_touched(job, rank))
        gathered = torch.cuda.Event()
        if lane.method == "pages" and registered:
            lane.link.wait_stream(compute)
            in_pool, in_engine, sizes = page_copies(job, rank, self._layout, pool.address)
            for part in _parts(sizes):
                lane.pause()
                link = lane.link.cuda_stream
                self.dma.copy(in_pool[part], in_engine[part], sizes[part], link, order=IN_STREAM_ORDER, batch=True)
            handle = lane.end_on(lane.link)
            # The fence waits for one event: it must stand for the gathers of earlier staged saves too.
            lane.kernel.wait_event(handle.event)
            gathered.record(lane.kernel)
        else:
            handle = self._save_staged(job, rank, pool, compute, gathered, registered=registered)
        self._gathered = gathered
        return handle

    def _save_staged(
        self,
        job: SaveJob,
        rank: int,
        pool: PoolView,
        compute: torch.cuda.Stream,
        gathered: torch.cuda.Event,
        *,
        registered: bool,
    ) -> CudaHandle:
        """`gathered`: recorded behind the last reading of blocks."""
        lane = self.saves
        cut = cut_job(job, rank, self._layout, lane.ring())
        targets = cut.pool_offsets + pool.address
        with torch.cuda.stream(lane.kernel):
            lane.kernel.wait_stream(compute)
            table = self.mover.begin(cut, self._upload, to_engine=False)
            for piece in cut.pieces:
                place = lane.turn % len(lane.places)
                lane.turn += 1
                part = slice(*piece.copies)
                in_ring, in_pool, sizes, link = cut.staging[part], targets[part], cut.sizes[part], lane.link.cuda_stream
                if piece.partial:
                    # The rest of a payload that is saved in part must stay: fetch it, change it, write it back. The
                    # link stream keeps this behind the last copy out of this place, and earlier saves of this slot.
                    self.dma.copy(in_ring, in_pool, sizes, link, order=IN_STREAM_ORDER, batch=registered)
                    lane.linked[place].record(lane.link)
                lane.kernel.wait_event(lane.linked[place])
                self.mover.move(cut, piece, table, lane.places[place], to_engine=False)
                gathered.record(lane.kernel)
                lane.pause()
                self.dma.copy(in_pool, in_ring, sizes, link, order=IN_STREAM_ORDER, batch=registered)
                lane.linked[place].record(lane.link)
        return lane.end_on(lane.link)

    def _compute_stream(self) -> torch.cuda.Stream:
        """The stream that the engine's step enqueues on."""
        stream = torch.cuda.current_stream(self._device)
        self._compute = stream.cuda_stream
        return stream

    def _upload(self, numbers: Int64s, target: torch.Tensor | None) -> torch.Tensor:
        """Allocated and used on one stream, so its memory is reused in that order."""
        registered = torch.empty(numbers.shape, dtype=torch.int64, pin_memory=True)
        registered.numpy()[:] = numbers
        return (
            registered.to(self._device, non_blocking=True)
            if target is None
            else target.copy_(registered, non_blocking=True)
        )


class CudaRegistrar:
    """Registers the pool with the device: pool_map.py's thread calls it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def enter_thread(self) -> None:
        torch.cuda.set_device(self._device)

    def register(self, address: int, size: int) -> int:
        return int(torch.cuda.cudart().cudaHostRegister(address, size, 0))

    def unregister(self, address: int) -> int:
        return int(torch.cuda.cudart().cudaHostUnregister(address))


def _parts(sizes: Int64s) -> list[slice]:
    """Copies in groups of about a place each."""
    group = (np.cumsum(sizes) - sizes) // MAX_PLACE_BYTES
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), sizes.size]
    return [slice(begin, end) for begin, end in itertools.pairwise(edges)]


def _touched(job: TransferJob, rank: int) -> npt.NDArray[np.int64]:
    return job.slot_offsets[rank][job.take_blocks > 0].astype(np.int64)
