"""Where one request's time goes: marks at the stages of vLLM's engine, and cProfile.

Both cost time themselves, so what is timed elsewhere is timed without them.
"""

from __future__ import annotations

import cProfile
import functools
import io
import itertools
import pstats
import statistics
import time
from collections.abc import Callable
from typing import Any

_functions = 40
_connector_hooks = (
    "on_new_request",
    "get_num_new_matched_tokens",
    "update_state_after_alloc",
    "build_connector_meta",
    "request_finished",
    "update_connector_output",
    "handle_preemptions",
    "start_load_kv",
    "wait_for_save",
    "get_finished",
    "get_block_ids_with_load_errors",
    "build_connector_worker_meta",
    "get_kv_connector_stats",
    "has_pending_push_work",
)


class StepMarks:
    """Wraps methods of the engine's parts, once and for good; they mark only while `run` runs.

    `update_from_output` begins when the GPU's result is on the host: the end of the forward pass.
    """

    def __init__(self, llm: Any) -> None:
        self._marks: list[tuple[str, float]] | None = None
        core = llm.llm_engine.engine_core.engine_core
        self._wrap(llm.llm_engine, "add_request", "add_request")
        self._wrap(core.scheduler, "schedule", "schedule")
        self._wrap(core.scheduler, "update_from_output", "update_from_output")
        for name in ("execute_model", "sample_tokens"):
            self._wrap(core.model_executor, name, name)
        for connector in _connectors(core):
            for hook in _connector_hooks:
                self._wrap(connector, hook, hook)

    def run(self, request: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        self._marks = []
        started = time.perf_counter()
        result = request()
        self._marks.append(("output", time.perf_counter()))
        marks, self._marks = self._marks, None
        return {
            "seconds": result["seconds"],
            "cached": result["cached"],
            "marks": [[name, round((at - started) * 1e3, 3)] for name, at in marks],
        }

    def _wrap(self, owner: Any, method: str, name: str) -> None:
        inner = getattr(owner, method, None)
        if inner is None:
            return

        @functools.wraps(inner)
        def marked(*args: Any, **kwargs: Any) -> Any:
            marks = self._marks
            if marks is None:
                return inner(*args, **kwargs)
            marks.append((f"{name} begin", time.perf_counter()))
            try:
                return inner(*args, **kwargs)
            finally:
                marks.append((f"{name} end", time.perf_counter()))

        setattr(owner, method, marked)


def hook_times(llm: Any, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the connector's hooks take of the engine's thread while `work` runs, and how long its steps are.

    Of each hook: calls, milliseconds of wall time (waits included) and of CPU time. Measuring costs a microsecond or
    two a call, so throughput is measured without it.
    """
    core = llm.llm_engine.engine_core.engine_core
    spent: dict[str, list[float]] = {}
    wrapped: list[tuple[Any, str]] = []

    def wrap(owner: Any, name: str, seen: Callable[[Any], None] | None = None) -> None:
        inner = getattr(owner, name, None)
        if inner is None:
            return
        sums = spent.setdefault(name, [0, 0.0, 0.0])

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                result = inner(*args, **kwargs)
                if seen is not None:
                    seen(result)
                return result
            finally:
                sums[0] += 1
                sums[1] += time.perf_counter() - wall
                sums[2] += time.thread_time() - cpu

        setattr(owner, name, timed)
        wrapped.append((owner, name))

    for connector in _connectors(core):
        for hook in _connector_hooks:
            wrap(connector, hook)
    hooks = set(spent)
    steps = _Steps()
    wrap(core.scheduler, "schedule", steps.scheduled)
    wrap(core.scheduler, "update_from_output")
    for name in ("execute_model", "sample_tokens"):
        wrap(core.model_executor, name)
    own, all_threads, began = time.thread_time(), time.process_time(), time.perf_counter()
    try:
        result = work()
    finally:
        for owner, name in wrapped:
            delattr(owner, name)
    own, all_threads = time.thread_time() - own, time.process_time() - all_threads
    requests = len(result["requests"])
    total = sum(spent[name][1] for name in hooks)
    count = int(spent["schedule"][0])
    shown = {
        name: {"calls": int(sums[0]), "ms": round(sums[1] * 1e3, 3), "cpu_ms": round(sums[2] * 1e3, 3)}
        for name, sums in spent.items()
        if sums[0]
    }
    return {
        "seconds": time.perf_counter() - began,
        "engine_thread_cpu_seconds": own,
        "other_threads_cpu_seconds": all_threads - own,
        "steps": count,
        "steps_by_kind": steps.by_kind(),
        "hooks_us_per_request": total * 1e6 / max(1, requests),
        "hooks_us_per_step": total * 1e6 / max(1, count),
        "hooks": {name: value for name, value in shown.items() if name in hooks},
        "stages": {name: value for name, value in shown.items() if name not in hooks},
    }


class _Steps:
    """Time from one plan of the scheduler to the next, by what the earlier one held."""

    #: Decode steps right after a prefill: what it leaves to be copied out is under way.
    after_prefill = 6

    def __init__(self) -> None:
        self._seen: list[tuple[float, float, str]] = []
        self._since_prefill = self.after_prefill

    def scheduled(self, output: Any) -> None:
        counts = output.num_scheduled_tokens.values()
        if not counts:
            kind = "empty"
        elif max(counts) > 1:
            kind, self._since_prefill = f"prefill of {'many' if max(counts) > 1000 else 'few'}", 0
        else:
            self._since_prefill += 1
            kind = f"decode {len(counts)}" + ("" if self._since_prefill > self.after_prefill else " after prefill")
        self._seen.append((time.perf_counter(), time.thread_time(), kind))

    def by_kind(self) -> dict[str, dict[str, float]]:
        lengths: dict[str, list[tuple[float, float]]] = {}
        for (begin, cpu, kind), (end, cpu_end, _) in itertools.pairwise(self._seen):
            lengths.setdefault(kind, []).append(((end - begin) * 1e3, (cpu_end - cpu) * 1e3))
        return {
            kind: {
                "count": len(of),
                "ms": round(sum(wall for wall, _ in of), 3),
                "median_ms": round(statistics.median(wall for wall, _ in of), 3),
                "median_cpu_ms": round(statistics.median(cpu for _, cpu in of), 3),
            }
            for kind, of in sorted(lengths.items())
        }


def _connectors(core: Any) -> list[Any]:
    """The scheduler's and the worker's, as far as they are there."""
    connectors = [getattr(core.scheduler, "connector", None)]
    try:
        from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group

        connectors.append(get_kv_transfer_group() if has_kv_transfer_group() else None)
    except (ImportError, AssertionError):
        pass
    return [connector for connector in connectors if connector is not None]


def profiled(request: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    profile = cProfile.Profile()
    result = profile.runcall(request)
    texts = {}
    for title, order in (("cumulative", "cumulative"), ("own", "tottime")):
        text = io.StringIO()
        pstats.Stats(profile, stream=text).sort_stats(order).print_stats(_functions)
        texts[title] = text.getvalue()
    return {"seconds": result["seconds"], "cached": result["cached"], **texts}
