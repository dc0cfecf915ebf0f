"""A worker without a GPU that is as slow as it may be: saves are read from the engine's blocks as late as the plan
allows (several steps after they were asked for, or just before a fence), loads between steps end steps later. Whoever
reuses a block too early is found out.
"""

from __future__ import annotations

import mmap
import random

import numpy as np

from reprise_engine.jobs import Geometry
from reprise_engine.plan import LoadJob, SaveJob, StepPlan, TransferJob, WorkerReport


class SlowWorker:
    """Does what the plans say, as late as they allow. One rank."""

    def __init__(self, memory: np.ndarray, geometry: Geometry, rng: random.Random) -> None:
        self.memory = memory
        self.geometry = geometry
        self.rng = rng
        self.fails = 0.0
        self._pool: mmap.mmap | None = None
        self._epoch = -1
        self._open: list[tuple[int, TransferJob]] = []
        self._finish_loads: dict[str, list[int]] = {}
        self._finish_saves: dict[str, list[int]] = {}
        self._jobs_of: dict[str, set[int]] = {}
        self.invalid: set[int] = set()
        self.report = WorkerReport()
        self.step = 0
        #: Pool bytes as they were when a load was prefetched, by job: what the load then uses.
        self.prefetched: dict[int, list[bytes]] = {}
        self.prefetches_used = self.prefetches_forgotten = 0
        #: Loads that were done before their step.
        self._begun: set[int] = set()
        self.loads_begun = 0

    def prefetch(self, job: LoadJob) -> None:
        if self._pool is not None and job.epoch == self._epoch:
            size = self.geometry.block_bytes
            self.prefetched[job.job_id] = [
                bytes(self._pool[int(offset) : int(offset) + int(count) * size])
                for offset, count in zip(job.slot_offsets[0], job.chunk_blocks, strict=True)
            ]

    def forget(self, job_id: int) -> None:
        if self.prefetched.pop(job_id, None) is not None:
            self.prefetches_forgotten += 1

    def begin_loads(self, plan: StepPlan) -> None:
        """At once, into the blocks: whoever still reads them, or has others in mind for them, is found out."""
        if plan.fence_saves:
            return
        for job in plan.loads:
            if job.epoch == self._epoch and self.rng.random() < 0.7:
                self._move(job)
                self._begun.add(job.job_id)
                self.loads_begun += 1

    def begin_step(self, plan: StepPlan) -> None:
        self.step += 1
        if plan.pool is not None and plan.pool.epoch != self._epoch:
            with open(plan.pool.path, "r+b") as file:
                self._pool = mmap.mmap(file.fileno(), plan.pool.bytes)
            self._epoch = plan.pool.epoch
            self.report.ready[plan.pool.epoch] = 1
        if plan.fence_saves:
            for due in [due for due in self._open if isinstance(due[1], SaveJob)]:
                self._open.remove(due)
                self._end(due[1])
        for job in plan.loads:
            if job.in_step:
                self._end(job)
                continue
            self._jobs_of.setdefault(job.request_id, set()).add(job.job_id)
            self._open.append((self.step + self.rng.randrange(4), job))
        for save in plan.saves:
            self._open.append((self.step + self.rng.randrange(6), save))
        self.invalid.update(plan.unloaded)
        self._finish_loads.update(plan.finish_loads)
        self._finish_saves.update(plan.finish_saves)

    def end_step(self) -> tuple[set[str], set[str]]:
        for due, job in list(self._open):
            if due <= self.step:
                self._open.remove((due, job))
                self._end(job)
        open_jobs = {job.job_id for _, job in self._open}
        sent = {name for name, jobs in self._finish_saves.items() if not open_jobs.intersection(jobs)}
        received = {name for name in self._finish_loads if not open_jobs.intersection(self._jobs_of.get(name, ()))}
        for name in sent:
            del self._finish_saves[name]
        for name in received:
            self.invalid.update(self._finish_loads.pop(name))
            self._jobs_of.pop(name, None)
        return sent, received

    def take_invalid(self) -> set[int]:
        taken, self.invalid = self.invalid, set()
        return taken

    def take_report(self) -> WorkerReport:
        taken, self.report = self.report, WorkerReport()
        return taken

    @property
    def idle(self) -> bool:
        return not self._open and not self._finish_loads and not self._finish_saves

    def _end(self, job: TransferJob) -> None:
        self.report.done[job.job_id] = 1
        assert not (isinstance(job, LoadJob) and job.in_step and len(set(job.block_ids.tolist())) != job.block_ids.size)
        if job.epoch != self._epoch or self.rng.random() < self.fails:
            self.report.failed.add(job.job_id)
            if isinstance(job, LoadJob):
                self.invalid.update(job.block_ids.tolist())
                self.forget(job.job_id)
                self._begun.discard(job.job_id)
            return
        if job.job_id in self._begun:
            self._begun.remove(job.job_id)
        else:
            self._move(job)

    def _move(self, job: TransferJob) -> None:
        assert self._pool is not None
        early = self.prefetched.pop(job.job_id, None)
        self.prefetches_used += early is not None
        at = 0
        size = self.geometry.block_bytes
        columns = zip(job.slot_offsets[0], job.chunk_blocks, job.skip_blocks, job.take_blocks, strict=True)
        for chunk, (offset, count, skip, take) in enumerate(columns):
            assert 0 < take <= count - skip
            for k in range(int(take)):
                block = int(job.block_ids[at])
                begin = int(offset) + (int(skip) + k) * size
                if isinstance(job, LoadJob):
                    payload = self._pool[begin : begin + size]
                    if early is not None:
                        payload = early[chunk][begin - int(offset) :][:size]
                    self.memory[block] = np.frombuffer(payload, np.uint8)
                else:
                    self._pool[begin : begin + size] = self.memory[block].tobytes()
                at += 1
        assert at == len(job.block_ids)
