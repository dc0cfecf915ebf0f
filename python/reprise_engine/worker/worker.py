"""The worker side: one per rank, in the engine's process. It maps the pool, runs each step's jobs, says how they ended.

    before_forward(plan)   the fence, always before the forward pass
    begin_step(plan)       maps a new pool · starts loads, then saves         before it; after it without in-step loads
    end_step()             notices ends · ids whose loads or saves are over   after it
    take_…                 what the step has to tell: invalid blocks, the report
    wait_for_layer(name)   before each layer of a forward pass whose loads arrive layer by layer

Where the scheduler lives in the same process, it also tells of loads before their step (loads_ahead.py):

    prefetch(job)          a load that a plan will hold soon; forget(job) that it will not
    begin_loads(plan)      what the next step loads

Only `register` raises. What goes wrong later becomes a failed job, a counter and at most one line of log: a failed load
means blocks that must be computed, a failed save a chunk that is not stored.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from reprise_engine.copy.copier import Copier, Handle, JobError
from reprise_engine.copy.layout import Layout, LayoutError, read_layout
from reprise_engine.copy.open_copier import open_copier
from reprise_engine.copy.pool_map import PoolMap, Registrar
from reprise_engine.log import log
from reprise_engine.plan import JobId, LoadJob, PoolRef, SaveJob, StepPlan, TransferJob, WorkerReport
from reprise_engine.worker.loads_ahead import LoadsAhead

if TYPE_CHECKING:
    import torch


#: A pool that could not be mapped is tried again after this long.
REMAP_SECONDS = 1.0


@dataclass(slots=True)
class Running:
    """A job that was started."""

    job: TransferJob
    handle: Handle
    pool: PoolMap
    #: The forward pass may have read its blocks before they were there; they have been reported.
    read_early: bool = False


@dataclass(slots=True)
class Arriving:
    """A request whose blocks are loaded between steps."""

    jobs: set[JobId] = field(default_factory=set)
    bad_blocks: set[int] = field(default_factory=set)
    #: Its last load job has been given.
    complete: bool = False


class WorkerSide:
    """Called from the engine's thread only. `now` is the clock of the jobs' `valid_until`."""

    def __init__(
        self,
        rank: int,
        world_size: int,
        staging_bytes: int,
        *,
        by_layers: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`by_layers`: the engine calls `wait_for_layer` before each layer of a forward pass, whenever asked to."""
        self.rank = rank
        self.world_size = world_size
        #: Jobs and bytes by what became of them, and failures by reason.
        self.counters: Counter[str] = Counter()
        self.layout: Layout | None = None
        self._staging_bytes = staging_bytes
        self._by_layers = by_layers
        self._now = now
        self._copier: Copier | None = None
        self._registrar: Registrar | None = None
        self._pool: PoolMap | None = None
        self._remap_at = 0.0
        #: Pools of former epochs with copies under way.
        self._retired: list[PoolMap] = []
        self._running: dict[JobId, Running] = {}
        #: Loads of this step that are waited for layer by layer.
        self._layered: list[Running] = []
        self._ahead = LoadsAhead(rank, self.counters, self._once)
        #: The engine's thread, once it has begun a step.
        self._thread: int | None = None
        self._arriving: dict[str, Arriving] = {}
        self._leaving: dict[str, set[JobId]] = {}
        self._invalid: set[int] = set()
        self._report = WorkerReport()
        self._logged: set[str] = set()

    @property
    def facts(self) -> Mapping[str, float | str]:
        """What the copier measured and chose at start."""
        return self._copier.facts if self._copier is not None else {}

    @property
    def largest_payload_bytes(self) -> int:
        """What the copier can move as one payload."""
        return self._copier.largest_payload_bytes if self._copier is not None else 0

    @property
    def waits_by_layer(self) -> bool:
        """Whether this step needs `wait_for_layer`."""
        return bool(self._layered)

    def register(self, kv_caches: Mapping[str, torch.Tensor], num_blocks: int, block_tokens: int) -> Layout:
        """Reads the layout and opens a copier; until then, and when this fails, all jobs are refused.

        @throws LayoutError (a ValueError) when the cache's shape is not understood, or no copier works on its device.
        """
        layout = read_layout(kv_caches, num_blocks, block_tokens)
        try:
            self._copier, self._registrar = open_copier(layout, self._staging_bytes)
        except (OSError, RuntimeError) as error:
            raise LayoutError(
                f"copies to and from the KV cache on {layout.device} cannot be prepared: {error}"
            ) from error
        self._copier.by_layers = self._by_layers
        self.layout = layout
        return layout

    def prefetch(self, job: LoadJob) -> None:
        """Starts the first copies of a load that a plan will hold soon, if that can be done now. Its `block_ids` are
        not known yet. Does nothing in other threads than the engine's.
        """
        if self._copier is not None and self._pool is not None and self._may_begin(job):
            self._ahead.prefetch(self._copier, self._pool, job)

    def forget(self, job_id: JobId) -> None:
        """No plan will hold this load."""
        if self._copier is not None:
            self._ahead.forget(self._copier, job_id)

    def begin_loads(self, plan: StepPlan) -> None:
        """Starts loads of the plan that the engine's next step will hold: they are under way while it is prepared."""
        copier, pool = self._copier, self._pool
        if copier is None or pool is None or plan.fence_saves:  # blocks may be read by saves until the step's fence
            return
        for job in plan.loads:
            if self._may_begin(job):
                self._ahead.begin(copier, pool, job)

    def wait_for_layer(self, layer: str) -> None:
        """Whatever the engine enqueues from here on may read this layer of the blocks that this step loads."""
        for running in self._layered:
            try:
                if running.handle.layers is not None:
                    running.handle.layers.wait(layer)
            except Exception as error:  # `end_step` finds that this layer was left out
                self._once("layer", "waiting for a layer failed: %r", error)

    def before_forward(self, plan: StepPlan) -> None:
        """The plan's fence."""
        if not plan.fence_saves or self._copier is None:
            return
        try:
            self._copier.fence()
        except Exception as error:
            self._once("fence", "waiting for saves failed: %r", error)

    def begin_step(self, plan: StepPlan) -> None:
        self._thread = threading.get_ident()
        if plan.pool is not None:
            self._map(plan.pool)
        self.before_forward(plan)  # again, for a caller that knows begin_step only; it costs nothing
        for load in plan.loads:
            if not load.in_step:
                self._arriving.setdefault(load.request_id, Arriving()).jobs.add(load.job_id)
            self._start(load)
        self._ahead.abandon_begun()
        for save in plan.saves:
            self._start(save)
        self._invalid.update(plan.unloaded)
        for request_id, blocks in plan.finish_loads.items():
            arriving = self._arriving.setdefault(request_id, Arriving())
            arriving.complete = True
            arriving.bad_blocks.update(blocks)
        for request_id, job_ids in plan.finish_saves.items():
            self._leaving.setdefault(request_id, set()).update(job_ids)

    def end_step(self) -> tuple[set[str] | None, set[str] | None]:
        """(requests whose saves are over, requests whose loads are over), each named once."""
        if not (self._running or self._arriving or self._leaving or self._retired):
            return None, None  # nothing is under way, as after most steps
        for running in self._layered:
            self._check_layers(running)
        self._layered.clear()
        for running in list(self._running.values()):
            self._notice_end(running)
        self._close_retired()
        received = {
            request_id for request_id, arriving in self._arriving.items() if arriving.complete and not arriving.jobs
        }
        for request_id in received:
            self._invalid |= self._arriving.pop(request_id).bad_blocks
        sent = {request_id for request_id, job_ids in self._leaving.items() if job_ids.isdisjoint(self._running)}
        for request_id in sent:
            del self._leaving[request_id]
        return sent or None, received or None

    def take_invalid_blocks(self) -> set[int]:
        """Blocks whose loads failed, and that a step or a received request would read: to be computed."""
        taken, self._invalid = self._invalid, set()
        return taken

    def take_report(self) -> WorkerReport | None:
        if self._report.is_empty:
            return None
        taken, self._report = self._report, WorkerReport()
        return taken

    def close(self) -> None:
        """Waits for the copies under way."""
        for what in (self._copier, *self._retired, self._pool):
            if what is None:
                continue
            try:
                what.close()
            except Exception as error:
                self._once("close", "closing failed: %r", error)
        self._copier, self._pool, self._retired = None, None, []
        self._running.clear()
        self._layered.clear()
        self._ahead.clear()

    def _map(self, pool: PoolRef) -> None:
        if self._copier is None or (self._pool is not None and self._pool.epoch == pool.epoch):
            return
        if self._pool is not None:
            self._ahead.forget_prefetched(self._copier)
            self._retired.append(self._pool)
            self._pool = None
            self._remap_at = 0.0
        now = time.monotonic()
        if now < self._remap_at:
            return
        try:
            self._pool = PoolMap(pool, self._registrar)
        except Exception as error:
            self._remap_at = now + REMAP_SECONDS
            self.counters["map_failed"] += 1
            self._once(
                "map", "the memory pool %s cannot be mapped, nothing is reused until it can: %r", pool.path, error
            )
            return
        self._report.ready[pool.epoch] = self._report.ready.get(pool.epoch, 0) + 1

    def _start(self, job: LoadJob | SaveJob) -> None:
        pool, copier = self._pool, self._copier
        begun, reason = self._taken(job)
        if begun is None and reason is None:
            reason = self._refusal(job) or self._too_early(job)
        if begun is None and reason is None and pool is not None and copier is not None:
            try:
                if isinstance(job, LoadJob):
                    begun = copier.load(job, self.rank, pool), pool
                    self._ahead.overtaken()
                else:
                    begun = copier.save(job, self.rank, pool), pool
            except JobError as error:
                reason = "malformed"
                self._once(reason, "%s", error)
            except Exception as error:
                reason = "copy_error"
                self._once(reason, "a copy could not be started: %r", error)
        if begun is None:
            self.forget(job.job_id)
            self._end(job, reason or "no_pool")
            return
        running = Running(job, *begun)
        self._running[job.job_id] = running
        if running.handle.layers is not None:
            self._layered.append(running)
        self.counters["loads_started" if isinstance(job, LoadJob) else "saves_started"] += 1

    def _taken(self, job: TransferJob) -> tuple[tuple[Handle, PoolMap] | None, str | None]:
        """The load that was begun ahead of this step; or why it cannot be used."""
        if self._copier is None:
            return None, None
        try:
            return self._ahead.take(self._copier, job), None
        except Exception as error:
            self._once("copy_error", "a load that was begun could not be waited for: %r", error)
            return None, "copy_error"

    def _may_begin(self, job: LoadJob) -> bool:
        return threading.get_ident() == self._thread and self._refusal(job) is None

    def _check_layers(self, running: Running) -> None:
        """A load that a layer has not waited for may have been read too early: its blocks are computed."""
        try:
            if running.handle.layers is None or running.handle.layers.finish():
                return
        except Exception as error:
            self._once("layer", "waiting for a layer failed: %r", error)
        running.read_early = True
        self._invalid.update(running.job.block_ids.tolist())
        if self._copier is not None:
            self._copier.by_layers = False
        self._once(
            "read_early",
            "the engine did not wait for every layer of a load: its blocks are computed, and from now on whole loads "
            "are waited for",
        )

    def _refusal(self, job: TransferJob) -> str | None:
        if self._copier is None:
            return "no_layout"
        if self._pool is None:
            return "no_pool"
        if job.epoch != self._pool.epoch:
            return "wrong_epoch"
        if self._now() > job.valid_until:
            return "expired_before_start"
        if not np.array_equal(job.old_positions, job.new_positions):
            return "moved"
        return None

    def _too_early(self, job: TransferJob) -> str | None:
        """In the first seconds of a large pool an unregistered copy would hold up the engine; a save can be missed."""
        pool = self._pool
        if pool is None or not isinstance(job, SaveJob) or not pool.is_registering:
            return None
        return None if pool.is_registered(job.slot_offsets[self.rank]) else "registering"

    def _notice_end(self, running: Running) -> None:
        job, handle = running.job, running.handle
        try:
            if not handle.done:
                return
            if running.read_early:
                reason: str | None = "read_early"
            elif running.pool is not self._pool:
                reason = "epoch_ended"
            else:
                # A late save may have written into a slot that is another's by now; the cache must not trust it either.
                reason = "expired" if handle.ended_at > job.valid_until else None
        except Exception as error:
            reason = "copy_error"
            self._once(reason, "a copy failed: %r", error)
        del self._running[job.job_id]
        self._end(job, reason)

    def _end(self, job: TransferJob, failure: str | None) -> None:
        """Books a job's end; `failure` says why its bytes are not to be used."""
        kind = "load" if isinstance(job, LoadJob) else "save"
        self._report.done[job.job_id] = self._report.done.get(job.job_id, 0) + 1
        if failure is None:
            self.counters[f"{kind}s_done"] += 1
            if self.layout is not None:
                self.counters[f"{kind}_bytes"] += self.layout.payload_bytes(int(job.block_ids.size))
        else:
            self.counters[f"{kind}s_failed"] += 1
            self.counters[f"{kind}_failed_{failure}"] += 1
            self._report.failed.add(job.job_id)
        if not isinstance(job, LoadJob):
            return
        blocks = set(job.block_ids.tolist()) if failure is not None else set()
        if job.in_step:
            if failure != "read_early":
                self._invalid |= blocks
            return
        arriving = self._arriving.setdefault(job.request_id, Arriving())
        arriving.jobs.discard(job.job_id)
        arriving.bad_blocks |= blocks

    def _close_retired(self) -> None:
        if not self._retired:
            return
        read = [*(running.pool for running in self._running.values()), *self._ahead.pools()]
        for pool in list(self._retired):
            if any(one is pool for one in read):
                continue
            self._retired.remove(pool)
            try:
                pool.close()
            except Exception as error:
                self._once("close", "unmapping a former pool failed: %r", error)

    def _once(self, kind: str, message: str, *args: object) -> None:
        """One line for each kind of failure; the counters tell how many."""
        if kind not in self._logged:
            self._logged.add(kind)
            log.warning(message, *args)
