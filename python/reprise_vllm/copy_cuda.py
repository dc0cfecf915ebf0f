"""Copies for KV caches on a GPU (CUDA, ROCm), through staging on the device, so that the link sees large copies only.

    load   pool ══ link stream ══► staging place ── kernel stream ──► blocks      kernel waits for the compute stream
    save   blocks ── kernel stream ──► staging place ══ link stream ══► pool      as it stood when the job was enqueued

Each direction has two streams and a ring of its own. The link fills (or drains) one place while the kernel works on the
other; when both are taken the streams wait for each other, never the CPU. Events order everything:

    place.linked   recorded on the link stream:   the place holds what was loaded / has been copied out
    place.moved    recorded on the kernel stream: the place has been scattered / holds what was gathered

Beside it stands a second method, pages: one batch of small copies straight between pool and blocks. A probe at start
takes the faster one for this layout and link.
"""

# torch.cuda has no annotations in some releases.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch

from reprise_vllm.copier import EXTENT_BYTES, check_job
from reprise_vllm.dma import ANY_ORDER, IN_STREAM_ORDER, Dma
from reprise_vllm.pieces import CutJob, Piece, Ring, cut_job, page_copies

if TYPE_CHECKING:
    from reprise_vllm.copier import PoolView
    from reprise_vllm.layout import Layout
    from reprise_vllm.plan import LoadJob, SaveJob, TransferJob

log = logging.getLogger("vllm.reprise")

#: The kernel needs a tenth of the time of the link for a place, so a third place would only wait.
PLACES = 2
#: Larger places would not make copies faster, and no payload needs more.
MAX_PLACE_BYTES = EXTENT_BYTES
MIN_PLACE_BYTES = 1024 * 1024
PAGE_BYTES = 4096


class Mover(Protocol):
    name: str

    def move(
        self, cut: CutJob, piece: Piece, rows: torch.Tensor, staging: torch.Tensor, *, to_engine: bool
    ) -> None: ...


class CudaHandle:
    """Ends with an event. A thread waits for it, so that the end is dated even when the engine takes no step."""

    def __init__(self, event: torch.cuda.Event) -> None:
        self.event = event
        self.ended_at = 0.0
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        if self.error is not None:
            raise self.error
        if self.ended_at == 0.0 and self.event.query():
            self.ended_at = time.monotonic()
        return self.ended_at != 0.0


class Lane:
    """One direction: its streams, its staging ring, and the thread that dates the ends of its jobs."""

    def __init__(self, device: torch.device, place_bytes: int, name: str) -> None:
        self.link = torch.cuda.Stream(device)
        self.kernel = torch.cuda.Stream(device)
        self.memory = torch.empty(PLACES * place_bytes, dtype=torch.uint8, device=device)
        self.places = [self.memory[i * place_bytes : (i + 1) * place_bytes] for i in range(PLACES)]
        self.linked = [torch.cuda.Event() for _ in range(PLACES)]
        self.moved = [torch.cuda.Event() for _ in range(PLACES)]
        self.turn = 0
        self.method = "staged"
        self._device = device
        self._ends: queue.SimpleQueue[CudaHandle | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._date_ends, name=f"reprise-{name}", daemon=True)
        self._thread.start()

    def ring(self) -> Ring:
        return Ring(self.memory.data_ptr(), PLACES, self.memory.numel() // PLACES, self.turn)

    def end_on(self, stream: torch.cuda.Stream) -> CudaHandle:
        """Whatever was enqueued on the stream so far, as a handle."""
        event = torch.cuda.Event(blocking=True)
        event.record(stream)
        handle = CudaHandle(event)
        self._ends.put(handle)
        return handle

    def close(self) -> None:
        self.link.synchronize()
        self.kernel.synchronize()
        self._ends.put(None)
        self._thread.join()

    def _date_ends(self) -> None:
        torch.cuda.set_device(self._device)
        while (handle := self._ends.get()) is not None:
            try:
                handle.event.synchronize()
            except RuntimeError as error:
                handle.error = error
            else:
                handle.ended_at = handle.ended_at or time.monotonic()


class CudaCopier:
    """@throws RuntimeError, OSError when the device has no room for the ring, or the driver is not to be had."""

    def __init__(self, layout: Layout, staging_bytes: int, mover: Mover) -> None:
        self.facts: dict[str, float | str] = {}
        self._layout = layout
        self._device = layout.device
        with torch.cuda.device(self._device):
            self.dma = Dma(rocm=torch.version.hip is not None)
            self.mover = mover
            self.loads, self.saves = _lanes(self._device, staging_bytes)
        self._gathered: torch.cuda.Event | None = None
        self.facts["mover"] = self.mover.name
        self.facts["place_mib"] = self.loads.ring().place_bytes / (1 << 20)

    def load(self, job: LoadJob, rank: int, pool: PoolView) -> CudaHandle:
        check_job(job, rank, self._layout, pool.bytes)
        with torch.cuda.device(self._device), _whole_or_drained(self.loads):
            return self._load(job, rank, pool)

    def save(self, job: SaveJob, rank: int, pool: PoolView) -> CudaHandle:
        check_job(job, rank, self._layout, pool.bytes)
        with torch.cuda.device(self._device), _whole_or_drained(self.saves):
            return self._save(job, rank, pool)

    def fence(self) -> None:
        if self._gathered is None:
            return
        if not self._gathered.query():
            torch.cuda.current_stream(self._device).wait_event(self._gathered)
        self._gathered = None

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # a context that is broken has nothing under way
            self.loads.close()
            self.saves.close()

    def _load(self, job: LoadJob, rank: int, pool: PoolView) -> CudaHandle:
        lane, compute = self.loads, torch.cuda.current_stream(self._device)
        registered = pool.is_registered(_touched(job, rank))
        if lane.method == "pages" and registered:
            # Straight into the blocks: nothing may come before the steps that still read them.
            lane.link.wait_stream(compute)
            in_pool, in_engine, sizes = page_copies(job, rank, self._layout, pool.address)
            self.dma.copy(in_engine, in_pool, sizes, lane.link.cuda_stream, order=ANY_ORDER, batch=True)
            handle = lane.end_on(lane.link)
            # Both methods may serve one lane: later kernels come after these copies.
            lane.kernel.wait_event(handle.event)
        else:
            handle = self._load_staged(job, rank, pool, compute, registered=registered)
        if job.in_step:
            compute.wait_event(handle.event)
        return handle

    def _load_staged(
        self, job: LoadJob, rank: int, pool: PoolView, compute: torch.cuda.Stream, *, registered: bool
    ) -> CudaHandle:
        lane = self.loads
        cut = cut_job(job, rank, self._layout, lane.ring())
        sources = cut.pool_offsets + pool.address
        with torch.cuda.stream(lane.kernel):
            lane.kernel.wait_stream(compute)
            rows = self._upload(cut)
            for piece in cut.pieces:
                place = lane.turn % PLACES
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
                lane.kernel.wait_event(lane.linked[place])
                self.mover.move(cut, piece, rows, lane.places[place], to_engine=True)
                lane.moved[place].record(lane.kernel)
        return lane.end_on(lane.kernel)

    def _save(self, job: SaveJob, rank: int, pool: PoolView) -> CudaHandle:
        lane, compute = self.saves, torch.cuda.current_stream(self._device)
        registered = pool.is_registered(_touched(job, rank))
        if lane.method == "pages" and registered:
            lane.link.wait_stream(compute)
            in_pool, in_engine, sizes = page_copies(job, rank, self._layout, pool.address)
            self.dma.copy(in_pool, in_engine, sizes, lane.link.cuda_stream, order=IN_STREAM_ORDER, batch=True)
            handle = lane.end_on(lane.link)
            # The fence waits for one event: it must stand for the gathers of earlier staged saves too.
            lane.kernel.wait_event(handle.event)
        else:
            handle = self._save_staged(job, rank, pool, compute, registered=registered)
        self._gathered = torch.cuda.Event()
        self._gathered.record(lane.kernel)
        return handle

    def _save_staged(
        self, job: SaveJob, rank: int, pool: PoolView, compute: torch.cuda.Stream, *, registered: bool
    ) -> CudaHandle:
        lane = self.saves
        cut = cut_job(job, rank, self._layout, lane.ring())
        targets = cut.pool_offsets + pool.address
        with torch.cuda.stream(lane.kernel):
            lane.kernel.wait_stream(compute)
            rows = self._upload(cut)
            for piece in cut.pieces:
                place = lane.turn % PLACES
                lane.turn += 1
                part = slice(*piece.copies)
                in_ring, in_pool, sizes, link = cut.staging[part], targets[part], cut.sizes[part], lane.link.cuda_stream
                if piece.partial:
                    # The rest of a payload that is saved in part must stay: fetch it, change it, write it back. The
                    # link stream keeps this behind the last copy out of this place, and earlier saves of this slot.
                    self.dma.copy(in_ring, in_pool, sizes, link, order=IN_STREAM_ORDER, batch=registered)
                    lane.linked[place].record(lane.link)
                lane.kernel.wait_event(lane.linked[place])
                self.mover.move(cut, piece, rows, lane.places[place], to_engine=False)
                lane.moved[place].record(lane.kernel)
                lane.link.wait_event(lane.moved[place])
                self.dma.copy(in_pool, in_ring, sizes, link, order=IN_STREAM_ORDER, batch=registered)
                lane.linked[place].record(lane.link)
        return lane.end_on(lane.link)

    def _upload(self, cut: CutJob) -> torch.Tensor:
        """The job's table on the device. Allocated and used on one stream, so its memory is reused in that order."""
        pinned = torch.empty(cut.table.shape, dtype=torch.int64, pin_memory=True)
        pinned.numpy()[:] = cut.table
        return pinned.to(self._device, non_blocking=True)


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


@contextlib.contextmanager
def _whole_or_drained(lane: Lane) -> Iterator[None]:
    """A job that could be enqueued in part only has failed: none of its copies may be under way when that is said."""
    try:
        yield
    except Exception:
        lane.link.synchronize()
        lane.kernel.synchronize()
        raise


def _touched(job: TransferJob, rank: int) -> npt.NDArray[np.int64]:
    return job.slot_offsets[rank][job.take_blocks > 0].astype(np.int64)


def _lanes(device: torch.device, staging_bytes: int) -> tuple[Lane, Lane]:
    """Both directions, with smaller places where the device is full."""
    place_bytes = min(MAX_PLACE_BYTES, staging_bytes // (2 * PLACES) // PAGE_BYTES * PAGE_BYTES)
    while place_bytes >= MIN_PLACE_BYTES:
        loads: Lane | None = None
        try:
            loads = Lane(device, place_bytes, "loads")
            return loads, Lane(device, place_bytes, "saves")
        except torch.cuda.OutOfMemoryError:
            if loads is not None:
                loads.close()
        place_bytes = place_bytes // 2 // PAGE_BYTES * PAGE_BYTES
    raise RuntimeError(
        f"{device} has no room for {2 * PLACES * MIN_PLACE_BYTES >> 20} MiB of staging, or fewer were allowed: "
        "lower --gpu-memory-utilization, or raise the connector's `staging`"
    )
