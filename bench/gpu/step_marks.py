"""Where one request's time goes: marks at the stages of vLLM's engine, and cProfile.

Both cost time themselves, so what is timed elsewhere is timed without them.
"""

from __future__ import annotations

import cProfile
import functools
import io
import pstats
import time
from collections.abc import Callable
from typing import Any

_functions = 40
_connector_hooks = (
    "get_num_new_matched_tokens",
    "update_state_after_alloc",
    "build_connector_meta",
    "request_finished",
    "update_connector_output",
    "handle_preemptions",
    "start_load_kv",
    "wait_for_save",
    "get_finished",
    "build_connector_worker_meta",
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
        connectors = [getattr(core.scheduler, "connector", None)]
        try:
            from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group

            connectors.append(get_kv_transfer_group() if has_kv_transfer_group() else None)
        except (ImportError, AssertionError):
            pass
        for connector in connectors:
            for hook in _connector_hooks if connector is not None else ():
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


def profiled(request: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    profile = cProfile.Profile()
    result = profile.runcall(request)
    texts = {}
    for title, order in (("cumulative", "cumulative"), ("own", "tottime")):
        text = io.StringIO()
        pstats.Stats(profile, stream=text).sort_stats(order).print_stats(_functions)
        texts[title] = text.getvalue()
    return {"seconds": result["seconds"], "cached": result["cached"], **texts}
