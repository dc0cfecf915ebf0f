"""Where the two sides of an engine meet when they live in one process: one rank, and an executor without processes.

The scheduler side then tells the worker of a load as soon as it is claimed, and again when its blocks are known: before
the step that loads it, which a long prompt takes long to prepare. Nothing depends on it: where nobody is found, loads
begin with their step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from reprise_engine.plan import JobId, LoadJob, StepPlan


class Prefetcher(Protocol):
    def prefetch(self, job: LoadJob) -> None:
        """A plan will hold this load soon; its `block_ids` are not known yet."""

    def forget(self, job_id: JobId) -> None:
        """No plan will hold it."""

    def begin_loads(self, plan: StepPlan) -> None:
        """The engine's next step will hold this plan."""


#: By the engine's id and the cache's socket (an engine may have a connector for each of several caches), for as long
#: as the worker lives.
_workers: WeakValueDictionary[tuple[str, str], Prefetcher] = WeakValueDictionary()


def introduce(engine_id: str, socket_path: str, worker: Prefetcher) -> None:
    """Called by the worker of an engine with one rank."""
    _workers[engine_id, socket_path] = worker


def worker_of(engine_id: str, socket_path: str) -> Prefetcher | None:
    """The worker of this engine and cache, where it lives in this process."""
    return _workers.get((engine_id, socket_path))
