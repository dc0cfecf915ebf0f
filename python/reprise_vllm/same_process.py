"""Where the two sides of an engine meet when they live in one process: one rank, and an executor without processes.

The scheduler side then tells the worker of a load as soon as it is claimed, and again when its blocks are known: before
the step that loads it, which a long prompt takes long to prepare. Nothing depends on it: where nobody is found, loads
begin with their step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from reprise_vllm.plan import JobId, LoadJob, StepPlan
    from reprise_vllm.worker import WorkerSide


class Prefetcher(Protocol):
    def prefetch(self, job: LoadJob) -> None:
        """A plan will hold this load soon; its `block_ids` are not known yet."""

    def forget(self, job_id: JobId) -> None:
        """No plan will hold it."""

    def begin_loads(self, plan: StepPlan) -> None:
        """The engine's next step will hold this plan."""


#: By vLLM's engine id, for as long as the worker lives.
_workers: WeakValueDictionary[str, WorkerSide] = WeakValueDictionary()


def introduce(engine_id: str, worker: WorkerSide) -> None:
    """Called by the worker of an engine with one rank."""
    _workers[engine_id] = worker


def worker_of(engine_id: str) -> WorkerSide | None:
    """The worker of this engine, where it lives in this process."""
    return _workers.get(engine_id)
