"""Loads that begin before the step that holds them, where the scheduler lives in the worker's process.

claimed     prefetch   the first pieces come into staging: which blocks they are for is not known yet
planned     begin      all of it, into its blocks, while the engine still prepares the step
the step    take       whatever it enqueues is ordered behind an in-step load
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from reprise_engine.plan import LoadJob

if TYPE_CHECKING:
    from reprise_engine.copy.copier import Copier, Handle
    from reprise_engine.copy.pool_map import PoolMap
    from reprise_engine.plan import JobId, TransferJob


class LoadsAhead:
    """Of one worker. Nothing here raises but `take`; a load that could not begin early begins with its step."""

    def __init__(self, rank: int, counters: Counter[str], warn: Callable[..., None]) -> None:
        """`warn(kind, message, *args)` logs a kind of failure once."""
        self._rank = rank
        self._counters = counters
        self._warn = warn
        #: What was prefetched and not taken up.
        self._prefetched: JobId | None = None
        self._begun: dict[JobId, tuple[Handle, PoolMap]] = {}
        #: All that was enqueued here and may still read a pool, and some that is over.
        self._reading: list[tuple[Handle, PoolMap]] = []

    def prefetch(self, copier: Copier, pool: PoolMap, job: LoadJob) -> None:
        try:
            handle = copier.prefetch(job, self._rank, pool)
        except Exception as error:
            self._warn("prefetch", "a load could not be begun early: %r", error)
            return
        if handle is not None:
            self._prefetched = job.job_id
            self._note(handle, pool)
            self._counters["prefetches"] += 1

    def begin(self, copier: Copier, pool: PoolMap, job: LoadJob) -> None:
        """The blocks of `job` may be written as soon as all that the engine has enqueued so far is over."""
        try:
            handle = copier.load_ahead(job, self._rank, pool)
        except Exception as error:
            self._warn("ahead", "a load could not be begun before its step: %r", error)
            return
        if handle is not None:
            self.overtaken()
            self._begun[job.job_id] = handle, pool
            self._note(handle, pool)
            self._counters["loads_begun_ahead"] += 1

    def take(self, copier: Copier, job: TransferJob) -> tuple[Handle, PoolMap] | None:
        """The load that was begun for this job. Whatever the engine enqueues next is ordered behind an in-step load."""
        begun = self._begun.pop(job.job_id, None)
        if begun is not None and isinstance(job, LoadJob) and job.in_step:
            copier.join(begun[0])
        return begun

    def abandon_begun(self) -> None:
        """No step will take what is left."""
        self._begun.clear()

    def overtaken(self) -> None:
        """A load was enqueued: it has taken up what was prefetched, or overwrites it."""
        self._prefetched = None

    def forget(self, copier: Copier, job_id: JobId) -> None:
        """No plan will hold this load."""
        if self._prefetched == job_id:
            self.forget_prefetched(copier)

    def forget_prefetched(self, copier: Copier) -> None:
        if self._prefetched is not None:
            self._prefetched = None
            copier.forget_prefetched()
            self._counters["prefetches_forgotten"] += 1

    def pools(self) -> list[PoolMap]:
        """Those that something begun here may still read."""
        return [pool for handle, pool in self._reading if not _is_over(handle)]

    def clear(self) -> None:
        self.abandon_begun()
        self._reading.clear()

    def _note(self, handle: Handle, pool: PoolMap) -> None:
        self._reading = [one for one in self._reading if not _is_over(one[0])]
        self._reading.append((handle, pool))


def _is_over(handle: Handle) -> bool:
    try:
        return handle.done
    except Exception:  # its load says so too
        return True
