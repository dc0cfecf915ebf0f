"""CUDA's streams and events without a GPU: work is done later, in any order that they allow.

What is enqueued stands in its stream until `run` takes it, from a random stream whose first entry may go. So whoever
relies on an order that no event gives is found out by some seed. Memory is the host's.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from reprise_engine.copy import copy_cuda, lane, layers
from reprise_engine.copy.move_torch import TorchMover
from reprise_engine.copy.pieces import CutJob, Piece


class Device:
    """All streams. `log` has what was enqueued, in the order of the calls."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.streams: list[Stream] = []
        self.compute = Stream(self)
        self.current = self.compute
        self.log: list[tuple[str, Stream]] = []
        #: Work that was done, over which a test may look at the order.
        self.done: list[str] = []

    def run(self, at_most: int | None = None) -> None:
        """Does enqueued work: all of it, or a few entries."""
        while at_most is None or at_most > 0:
            ready = [stream for stream in self.streams if stream.work and stream.work[0].ready()]
            if not ready:
                assert at_most is not None or not any(stream.work for stream in self.streams), (
                    "streams wait in a circle"
                )
                return
            work = self.rng.choice(ready).work.popleft()
            work.do()
            if work.name:
                self.done.append(work.name)
            at_most = None if at_most is None else at_most - 1

    def run_some(self) -> None:
        self.run(self.rng.choice((0, 0, 1, 3, 10, 30)))

    def on_compute(self, do: Callable[[], object]) -> None:
        self.compute.add("compute", do)


class Work(SimpleNamespace):
    name: str
    ready: Callable[[], bool]
    do: Callable[[], object]


class Stream:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.work: deque[Work] = deque()
        device.streams.append(self)
        self.cuda_stream = len(device.streams)

    def add(self, name: str, do: Callable[[], object], ready: Callable[[], bool] = lambda: True) -> None:
        if name:
            self.device.log.append((name, self))
        self.work.append(Work(name=name, do=do, ready=ready))

    def wait_event(self, event: Event) -> None:
        wanted = event.recorded
        self.add("", lambda: None, lambda: event.reached >= wanted)

    def wait_stream(self, other: Stream) -> None:
        event = Event(self.device)
        event.record(other)
        self.wait_event(event)

    def synchronize(self) -> None:
        while self.work:
            self.device.run(1)


class Event:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.recorded = self.reached = 0
        self._changed = threading.Condition()

    def record(self, stream: Stream | None = None) -> None:
        self.recorded += 1
        number = self.recorded
        (stream or self.device.current).add("", lambda: self._reach(number))

    def query(self) -> bool:
        return self.reached >= self.recorded

    def synchronize(self) -> None:
        """In a thread of its own: the work is done by the test's."""
        with self._changed:
            self._changed.wait_for(self.query)

    def _reach(self, number: int) -> None:
        with self._changed:
            self.reached = number
            self._changed.notify_all()


class Copies:
    """In place of the driver."""

    has_batches = True

    def __init__(self, device: Device) -> None:
        self.device = device
        #: Raises at this many further calls.
        self.refuses_after: int | None = None

    def copy(
        self, targets: np.ndarray, sources: np.ndarray, sizes: np.ndarray, stream: int, *, order: int, batch: bool
    ) -> None:
        if self.refuses_after is not None:
            self.refuses_after -= 1
            if self.refuses_after < 0:
                raise RuntimeError("the driver refused a copy")
        on = self.device.streams[stream - 1]
        for ends in zip(targets.tolist(), sources.tolist(), sizes.tolist(), strict=True):
            on.add("link", lambda ends=ends: ctypes.memmove(*ends))  # type: ignore[misc]

    def clear(self, address: int, size: int, stream: int) -> None:
        self.device.streams[stream - 1].add("", lambda: ctypes.memset(address, 0, size))


class Mover(TorchMover):
    """TorchMover, as late as a kernel."""

    device: Device

    def move(self, cut: CutJob, piece: Piece, rows: torch.Tensor, staging: torch.Tensor, *, to_engine: bool) -> None:
        super_move = super().move
        self.device.current.add("move", lambda: super_move(cut, piece, rows, staging, to_engine=to_engine))


def open_copier(
    monkeypatch: pytest.MonkeyPatch, layout: Any, *, place_bytes: int, seed: int
) -> tuple[copy_cuda.CudaCopier, Device]:
    """The CUDA copier over a fake device, with small places and copies of any size."""
    device = Device(seed)

    @contextlib.contextmanager
    def current(stream: Stream) -> Iterator[None]:
        before, device.current = device.current, stream
        yield
        device.current = before

    def empty(shape: Any, dtype: torch.dtype, **where: object) -> torch.Tensor:
        """Memory of the device may have been another's, whose last work still stands in the current stream."""
        memory = torch.empty(shape, dtype=dtype)
        if "device" in where:
            device.current.add("", lambda: memory.fill_(0xA5))
        return memory

    cuda = SimpleNamespace(
        Stream=lambda _device: Stream(device),
        Event=lambda **_kind: Event(device),
        device=lambda _device: contextlib.nullcontext(),
        set_device=lambda _device: None,
        current_stream=lambda _device: device.current,
        stream=current,
        OutOfMemoryError=MemoryError,
    )
    fake = SimpleNamespace(
        cuda=cuda,
        version=SimpleNamespace(hip=None),
        uint8=torch.uint8,
        int64=torch.int64,
        empty=empty,
    )
    for module in (copy_cuda, lane):
        monkeypatch.setattr(module, "torch", fake)
    monkeypatch.setattr(copy_cuda, "Dma", lambda *, rocm: Copies(device))
    monkeypatch.setattr(lane, "MIN_PLACE_BYTES", 1)
    monkeypatch.setattr(lane, "PAGE_BYTES", 16)
    monkeypatch.setattr(layers, "MIN_COPY_BYTES", 1)
    mover = Mover(layout)
    mover.device = device
    places = lane.LOAD_PLACES + lane.SAVE_PLACES
    copier = copy_cuda.CudaCopier(layout, places * (place_bytes + 15), mover)
    return copier, device
