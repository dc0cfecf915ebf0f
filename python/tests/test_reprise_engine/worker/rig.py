"""The worker side as the connector calls it, with the host copier and a real mapped file."""

from __future__ import annotations

from pathlib import Path

from reprise_engine.copy.copier import EXTENT_BYTES, PoolView
from reprise_engine.plan import LoadJob, SaveJob, StepPlan
from reprise_engine.worker.worker import WorkerSide
from test_reprise_engine import jobs_for_tests as jobs
from test_reprise_engine import layouts
from test_reprise_engine.layouts import BLOCK_TOKENS

BLOCKS = 29
SLOT = 65_536


class Clock:
    time = 100.0

    def __call__(self) -> float:
        return self.time


class Waits:
    """The layers of a load, without a device."""

    def __init__(self, layers: set[str]) -> None:
        self.left = set(layers)
        self.error: Exception | None = None

    def wait(self, layer: str) -> None:
        if self.error is not None:
            raise self.error
        self.left.discard(layer)

    def finish(self) -> bool:
        return not self.left


class Slow:
    """Stands before a copier: its copies end when the test says so."""

    def __init__(self, inner: object) -> None:
        self.inner, self.fences = inner, 0
        self.facts: dict[str, float | str] = {}
        self.handles: list[Slow.Handle] = []
        self.by_layers, self.largest_payload_bytes = False, EXTENT_BYTES
        self.prefetched: list[Slow.Handle] = []
        self.next_layers: Waits | None = None
        self.forgotten = 0
        self.ahead: list[Slow.Handle] = []
        self.joined: list[Slow.Handle] = []

    def prefetch(self, job: LoadJob, rank: int, pool: PoolView) -> Slow.Handle:
        self.prefetched.append(Slow.Handle())
        return self.prefetched[-1]

    def forget_prefetched(self) -> None:
        self.forgotten += 1

    def load(self, job: LoadJob, rank: int, pool: PoolView) -> Slow.Handle:
        self.inner.load(job, rank, pool)  # type: ignore[attr-defined]
        self.handles.append(Slow.Handle())
        self.handles[-1].layers, self.next_layers = self.next_layers, None
        return self.handles[-1]

    def load_ahead(self, job: LoadJob, rank: int, pool: PoolView) -> Slow.Handle:
        self.ahead.append(self.load(job, rank, pool))
        return self.ahead[-1]

    def join(self, handle: Slow.Handle) -> None:
        if handle.error is not None:
            raise handle.error
        self.joined.append(handle)

    def save(self, job: SaveJob, rank: int, pool: PoolView) -> Slow.Handle:
        self.inner.save(job, rank, pool)  # type: ignore[attr-defined]
        self.handles.append(Slow.Handle())
        return self.handles[-1]

    def fence(self) -> None:
        self.fences += 1

    def close(self) -> None:
        pass

    class Handle:  # noqa: D106
        ended_at = 0.0
        error: Exception | None = None
        layers: Waits | None = None

        @property
        def done(self) -> bool:
            if self.error is not None:
                raise self.error
            return self.ended_at != 0.0


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.caches = layouts.flash(BLOCKS)
        self.worker = WorkerSide(0, 1, 0, now=self.clock)
        self.layout = self.worker.register(self.caches, BLOCKS, BLOCK_TOKENS)
        self.pool = jobs.make_pool(folder, SLOT * 8)

    def slow(self) -> Slow:
        slow = Slow(self.worker._copier)
        self.worker._copier = slow  # type: ignore[assignment]
        return slow

    def step(self, **plan: object) -> tuple[set[str] | None, set[str] | None, set[int]]:
        self.worker.begin_step(StepPlan(**plan))  # type: ignore[arg-type]
        sent, received = self.worker.end_step()
        return sent, received, self.worker.take_invalid_blocks()

    def mapped(self) -> Rig:
        self.step(pool=self.pool)
        report = self.worker.take_report()
        assert report is not None
        assert report.ready == {self.pool.epoch: 1}
        return self

    def ended(self) -> tuple[dict[int, int], set[int]]:
        report = self.worker.take_report()
        return ({}, set()) if report is None else (report.done, report.failed)


def load(blocks: list[int], **more: object) -> LoadJob:
    return jobs.make_job(LoadJob, slots=[0], counts=[len(blocks)], blocks=blocks, **more)  # type: ignore[arg-type]


def save(blocks: list[int], **more: object) -> SaveJob:
    return jobs.make_job(SaveJob, slots=[0], counts=[len(blocks)], blocks=blocks, **more)  # type: ignore[arg-type]
