"""A direction of the CUDA copier: its two streams, its ring of staging places, and the thread that dates the ends."""

# torch.cuda has no annotations in some releases.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from reprise_engine.copy.copier import EXTENT_BYTES
from reprise_engine.copy.pieces import CutJob, Ring

if TYPE_CHECKING:
    from reprise_engine.copy.copier import PoolView
    from reprise_engine.copy.dma import Dma
    from reprise_engine.copy.layers import LayerGroups, LayerWaits
    from reprise_engine.plan import LoadJob

#: The kernel needs a tenth of the time of the link for a place, so two are enough to keep the link busy. Loads have
#: more: six of 64 MiB hold what the link brings in the 7 ms between a long request's claim and the plan of its step. A
#: smaller first piece would start the kernels earlier and gain nothing: the link is what takes long.
LOAD_PLACES, SAVE_PLACES = 6, 2
#: Larger places would not make copies faster, and no payload needs more.
MAX_PLACE_BYTES = EXTENT_BYTES
MIN_PLACE_BYTES = 1024 * 1024
PAGE_BYTES = 4096
PAUSE_BYTES = 64


class CudaHandle:
    """Ends with an event. A thread waits for it, so that the end is dated even when the engine takes no step."""

    def __init__(self, event: torch.cuda.Event, layers: LayerWaits | None = None) -> None:
        self.event = event
        self.layers = layers
        self.ended_at = 0.0
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        if self.error is not None:
            raise self.error
        if self.ended_at == 0.0 and self.event.query():
            self.ended_at = time.monotonic()
        return self.ended_at != 0.0


@dataclass(frozen=True, slots=True)
class Prefetched:
    """A load whose first pieces are enqueued on the link stream. `turn`: the ring's before the first of them."""

    job: LoadJob
    pool: PoolView
    groups: LayerGroups | None
    turn: int
    pieces: int
    #: All of its pieces, for blocks that are not known yet.
    cut: CutJob


class Lane:
    """One direction: its streams, its staging ring, and the thread that dates the ends of its jobs."""

    def __init__(self, device: torch.device, count: int, place_bytes: int, name: str, dma: Dma) -> None:
        self.link = torch.cuda.Stream(device)
        self.kernel = torch.cuda.Stream(device)
        self.memory = torch.empty(count * place_bytes, dtype=torch.uint8, device=device)
        self._flag = torch.empty(PAUSE_BYTES, dtype=torch.uint8, device=device)
        for stream in (self.link, self.kernel):  # the allocator gives memory that the current stream may still be using
            stream.wait_stream(torch.cuda.current_stream(device))
        self.places = [self.memory[i * place_bytes : (i + 1) * place_bytes] for i in range(count)]
        self.linked = [torch.cuda.Event() for _ in range(count)]
        self.moved = [torch.cuda.Event() for _ in range(count)]
        self.turn = 0
        #: The last job or prefetch: when it has ended, the lane is idle.
        self.last: CudaHandle | None = None
        self.prefetched: Prefetched | None = None
        self.method = "staged"
        self._device = device
        self._dma = dma
        self._copied, self._paused = torch.cuda.Event(), torch.cuda.Event()
        self._ends: queue.SimpleQueue[CudaHandle | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._date_ends, name=f"reprise-{name}", daemon=True)
        self._thread.start()

    def ring(self, turn: int | None = None) -> Ring:
        count = len(self.places)
        return Ring(self.memory.data_ptr(), count, self.memory.numel() // count, self.turn if turn is None else turn)

    def pause(self) -> None:
        """Makes the link wait, between the last copy and the next, until the kernel stream has done something: all that
        stands there now, and at least one tiny thing after that copy.

        As long as the next copy of a stream can begin, the device's copy engine serves no other stream: a step's
        sampled tokens, a few bytes, would come to the host when all of a save has, 25 ms later for 10,000 tokens. With
        these pauses they wait for one place, 1.2 ms at most, less than a step that was enqueued meanwhile takes.
        """
        self._copied.record(self.link)
        self.kernel.wait_event(self._copied)
        self._dma.clear(self._flag.data_ptr(), PAUSE_BYTES, self.kernel.cuda_stream)
        self._paused.record(self.kernel)
        self.link.wait_event(self._paused)

    def end_on(self, stream: torch.cuda.Stream, layers: LayerWaits | None = None) -> CudaHandle:
        """Whatever was enqueued on the stream so far, as a handle."""
        event = torch.cuda.Event(blocking=True)
        event.record(stream)
        self.last = CudaHandle(event, layers)
        self._ends.put(self.last)
        return self.last

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


def open_lanes(device: torch.device, staging_bytes: int, dma: Dma) -> tuple[Lane, Lane]:
    """Both directions, with smaller places where the device is full."""
    places = LOAD_PLACES + SAVE_PLACES
    place_bytes = min(MAX_PLACE_BYTES, staging_bytes // places // PAGE_BYTES * PAGE_BYTES)
    while place_bytes >= MIN_PLACE_BYTES:
        loads: Lane | None = None
        try:
            loads = Lane(device, LOAD_PLACES, place_bytes, "loads", dma)
            return loads, Lane(device, SAVE_PLACES, place_bytes, "saves", dma)
        except torch.cuda.OutOfMemoryError:
            if loads is not None:
                loads.close()
        place_bytes = place_bytes // 2 // PAGE_BYTES * PAGE_BYTES
    raise RuntimeError(
        f"{device} has no room for {places * MIN_PLACE_BYTES >> 20} MiB of staging, or fewer were allowed: "
        "lower --gpu-memory-utilization, or raise the connector's `staging`"
    )


@contextlib.contextmanager
def whole_or_drained(lane: Lane) -> Iterator[None]:
    """A job that could be enqueued in part only has failed: none of its copies may be under way when that is said."""
    try:
        yield
    except Exception:
        lane.link.synchronize()
        lane.kernel.synchronize()
        raise
