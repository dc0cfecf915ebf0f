"""The CUDA copier over streams that do their work in any order that its events allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reprise_engine.copy import copy_cuda
from reprise_engine.copy.copy_cuda import CudaCopier
from reprise_engine.copy.copy_host import HostCopier
from reprise_engine.copy.layout import Layout, read_layout
from reprise_engine.copy.pool_map import PoolMap
from reprise_engine.plan import LoadJob, SaveJob
from support.depth import seeds
from test_reprise_engine import fake_cuda, layouts
from test_reprise_engine import jobs_for_tests as jobs
from test_reprise_engine.layouts import ALL, BLOCK_TOKENS

BLOCKS = 29
SLOTS = 9
SHAPES = ("flash", "mla", "packed_nhd")


class Rig:
    """An engine's memory with a CUDA copier, and a pool."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.caches = ALL[name](BLOCKS)
        self.layout: Layout = read_layout(self.caches, BLOCKS, BLOCK_TOKENS)
        payload = self.layout.payload_bytes(4)
        self.slot = -(-payload // 4096) * 4096
        self.pool = PoolMap(jobs.make_pool(folder, self.slot * SLOTS))
        self.pool.is_registered = lambda offsets: True  # type: ignore[method-assign]
        self.copier: CudaCopier
        place = payload * int(self.rng.integers(1, 3))
        self.copier, self.device = fake_cuda.open_copier(monkeypatch, self.layout, place_bytes=place, seed=seed)
        self.host = HostCopier(self.layout)
        self.next_id = 1
        self.begun_ahead = 0

    def job(self) -> LoadJob:
        job = jobs.random_job(LoadJob, self.layout, self.rng, self.slot, SLOTS)
        job.job_id = self.next_id
        self.next_id += 1
        return job

    def whole_job(self, chunks: int, first_slot: int = 0) -> LoadJob:
        slots = [(first_slot + i) * self.slot for i in range(chunks)]
        job = jobs.make_job(LoadJob, slots=slots, counts=[4] * chunks, blocks=list(range(4 * chunks)))
        job.job_id = self.next_id
        self.next_id += 1
        return job

    def scribble(self) -> None:
        """The leases have fallen: others write into the slots."""
        self.pool.view[:] = self.rng.integers(0, 256, self.pool.bytes, dtype=np.uint8)

    def bytes_of(self, name: str) -> torch.Tensor:
        return self.caches[name].contiguous().view(torch.uint8).clone()

    def fill(self) -> None:
        for tensor in self.caches.values():
            noise = self.rng.integers(0, 256, tensor.numel() * tensor.element_size(), dtype=np.uint8)
            tensor.copy_(torch.from_numpy(noise).view(tensor.dtype).view(tensor.shape))

    def load_and_read(self, job: LoadJob, *, ahead: bool = False) -> bool:
        """A step: blocks are computed before it, loaded, read layer by layer, and overwritten by the next step.

        `ahead`: the load begins while the engine prepares the step.
        """
        device, seed = self.device, int(self.rng.integers(1 << 30))
        device.on_compute(lambda: layouts.fill(self.caches, seed))
        device.run_some()
        handle = self.copier.load_ahead(job, 0, self.pool) if ahead else None
        if handle is None:
            handle = self.copier.load(job, 0, self.pool)
        else:
            self.begun_ahead += 1
            device.run_some()
            self.copier.join(handle)
        device.run_some()
        seen: dict[str, torch.Tensor] = {}
        for name in self.caches:
            if handle.layers is not None:
                handle.layers.wait(name)
            device.on_compute(lambda name=name: seen.update({name: self.bytes_of(name)}))  # type: ignore[misc]
            device.run_some()
        waited = handle.layers is None or handle.layers.finish()
        device.on_compute(self.fill)
        device.run_some()
        device.run()
        assert handle.done
        layouts.fill(self.caches, seed)
        self.host.load(job, 0, self.pool)
        for name in self.caches:
            assert torch.equal(seen[name], self.bytes_of(name)), name
        return waited


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    name, seed = getattr(request, "param", ("flash", 1))
    made = Rig(monkeypatch, tmp_path, name, seed)
    made.scribble()
    yield made
    made.copier.close()
    made.pool.close()


many = pytest.mark.parametrize(
    "rig", [(name, seed) for name in SHAPES for seed in seeds(small=2, full=8)], indirect=True
)


@many
def test_loads_bring_the_right_bytes_whatever_was_prefetched_before(rig: Rig) -> None:
    """Prefetched and taken up, forgotten, overtaken by another load, or meant for other slots."""
    taken_up = 0
    for turn in range(25):
        rig.copier.by_layers = bool(rig.rng.random() < 0.5)
        job, fate = rig.job(), ("none", "taken", "forgotten", "overtaken", "changed", "modes")[turn % 6]
        if fate != "none":
            begun = rig.copier.prefetch(job, 0, rig.pool)
            rig.device.run_some()
            taken_up += begun is not None and fate == "taken"
        if fate == "forgotten":
            rig.copier.forget_prefetched()
            rig.scribble()
            job = rig.job()
        elif fate == "overtaken":
            rig.scribble()
            number = rig.job().job_id
            job = replace(job, job_id=number)  # the same slots: their bytes are others now
        elif fate == "changed":
            number, job = job.job_id, rig.job()
            job.job_id = number
        elif fate == "modes":
            rig.copier.by_layers = not rig.copier.by_layers
        assert rig.load_and_read(job, ahead=turn % 4 > 1)
    assert taken_up >= 3
    assert rig.begun_ahead >= 10


@many
def test_saves_write_what_the_blocks_held_when_they_were_asked_for(rig: Rig) -> None:
    for _ in range(6):
        rig.fill()
        save = jobs.random_job(SaveJob, rig.layout, rig.rng, rig.slot, SLOTS)
        before = rig.pool.view.copy()
        rig.host.save(save, 0, rig.pool)
        expected = rig.pool.view.copy()
        rig.pool.view[:] = before
        rig.copier.save(save, 0, rig.pool)
        rig.copier.fence()
        rig.device.on_compute(rig.fill)
        rig.device.run()
        assert np.array_equal(rig.pool.view, expected)


def test_a_prefetch_fills_the_places_and_its_load_brings_only_the_rest(rig: Rig) -> None:
    job = rig.whole_job(7)
    rig.copier.prefetch(job, 0, rig.pool)
    rig.device.run()
    place = rig.copier.largest_payload_bytes // rig.layout.payload_bytes(4)
    early = rig.device.done.count("link")
    assert early >= min(4, 7 // place)
    assert "move" not in rig.device.done, "no block is touched"
    rig.device.log.clear()
    rig.load_and_read(job)
    names = [name for name, _ in rig.device.log if name in ("link", "move")]
    assert names[0] == "move", "the first pieces are only moved"
    rig.device.log.clear()
    rig.load_and_read(rig.whole_job(7))
    again = [name for name, _ in rig.device.log if name in ("link", "move")]
    assert names.count("move") == again.count("move")
    assert names.count("link") + early == again.count("link")


def test_nothing_is_prefetched_while_the_lane_works_or_twice_or_from_unregistered_memory(rig: Rig) -> None:
    first, second = rig.whole_job(2), rig.whole_job(2, 4)
    rig.copier.load(rig.whole_job(3), 0, rig.pool)
    assert rig.copier.prefetch(first, 0, rig.pool) is None
    rig.device.run()
    rig.pool.is_registered = lambda offsets: False  # type: ignore[method-assign]
    assert rig.copier.prefetch(first, 0, rig.pool) is None
    rig.pool.is_registered = lambda offsets: True  # type: ignore[method-assign]
    assert rig.copier.prefetch(first, 0, rig.pool) is not None
    rig.device.run()
    assert rig.copier.prefetch(second, 0, rig.pool) is None
    rig.copier.forget_prefetched()
    assert rig.copier.prefetch(second, 0, rig.pool) is not None
    rig.copier.forget_prefetched()
    assert rig.copier.prefetch(first, 0, rig.pool) is None, "the forgotten copies are still under way"
    assert rig.load_and_read(first)


def test_a_prefetch_that_fails_half_way_leaves_nothing_behind(rig: Rig) -> None:
    rig.device.run()
    rig.copier.dma.refuses_after = 1  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="refused"):
        rig.copier.prefetch(rig.whole_job(7), 0, rig.pool)
    assert all(not stream.work for stream in rig.device.streams)
    rig.copier.dma.refuses_after = None  # type: ignore[attr-defined]
    assert rig.load_and_read(rig.whole_job(7))


def test_a_pool_of_another_epoch_is_read_anew(rig: Rig, tmp_path: Path) -> None:
    job = rig.whole_job(5)
    assert rig.copier.prefetch(job, 0, rig.pool) is not None
    rig.device.run()
    rig.pool = PoolMap(jobs.make_pool(tmp_path, rig.slot * SLOTS, epoch=2))
    rig.pool.is_registered = lambda offsets: True  # type: ignore[method-assign]
    rig.scribble()
    assert rig.load_and_read(job)


def test_no_load_begins_ahead_on_another_stream_than_the_steps(rig: Rig) -> None:
    job = rig.whole_job(3)
    assert rig.copier.load_ahead(job, 0, rig.pool) is None, "no step has told its stream yet"
    assert rig.load_and_read(job)
    rig.device.current = fake_cuda.Stream(rig.device)
    assert rig.copier.load_ahead(job, 0, rig.pool) is None
    rig.device.current = rig.device.compute
    assert rig.load_and_read(job, ahead=True)
    assert rig.begun_ahead == 1


def test_layers_are_waited_for_group_by_group_and_a_layer_left_out_is_told(rig: Rig) -> None:
    rig.copier.by_layers = True
    handle = rig.copier.load(rig.whole_job(7), 0, rig.pool)
    assert handle.layers is not None
    names = list(rig.caches)
    handle.layers.wait(names[0])
    rig.device.compute.synchronize()
    assert not handle.done, "the first layer does not wait for the last"
    handle.layers.wait(names[1])
    handle.layers.wait("no layer of ours")
    assert not handle.layers.finish()
    rig.device.compute.synchronize()
    rig.device.run()
    between = rig.whole_job(7)
    between.in_step = False
    assert rig.copier.load(between, 0, rig.pool).layers is None
    rig.device.run()


@pytest.mark.parametrize("method", ["staged", "pages"])
def test_between_two_copies_out_the_link_stands_still(rig: Rig, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Other streams' copies get their turn only when the next copy of this one has to wait for something."""
    payload = rig.layout.payload_bytes(4)
    monkeypatch.setattr(copy_cuda, "MAX_PLACE_BYTES", payload)
    lane: Any = rig.copier.saves
    lane.method = method
    slots = [2 * index * rig.slot for index in range(4)]  # no neighbours: every chunk is a copy of its own
    for first in (0, 12):  # two saves: also between the last copy of one and the first of the next
        blocks = list(range(first, first + 16))
        rig.copier.save(jobs.make_job(SaveJob, slots=slots, counts=[4] * 4, blocks=blocks), 0, rig.pool)
    most = lane.ring().place_bytes // payload if method == "staged" else 4 * rig.layout.runs.size
    copies = in_a_row = 0
    while any(stream.work for stream in rig.device.streams):
        others = [s for s in rig.device.streams if s is not lane.link and s.work and s.work[0].ready()]
        if others:  # as long as anything else can be done, the link does nothing
            others[0].work.popleft().do()
            in_a_row = 0
            continue
        work = lane.link.work.popleft()
        assert work.ready()
        work.do()
        copies += work.name == "link"
        in_a_row += work.name == "link"
        assert in_a_row <= most
    assert copies == 8 if method == "staged" else copies == 8 * 4 * rig.layout.runs.size
