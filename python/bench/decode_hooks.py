"""What the vLLM connector costs a step in which requests only decode: microseconds of each hook, as vLLM calls them.

A connector for each role, made of vLLM's own class without an engine; the cache is real, the KV cache lies in host
memory. Requests prefill, are saved, and then only decode. `noop` is a connector that does nothing
(bench/gpu/noop_connector.py) in the same steps, measured in turns with ours: what vLLM's plumbing and the clock take.

python python/bench/decode_hooks.py [--running 4] [--ranks 1]        one line of JSON on standard output

`hot`: one step after the other, medians. `paced`: a step each 5 ms in which 8 MiB of other memory are read, as an
engine does; means without the slowest fiftieth. `plan_bytes`: what several ranks are sent in such a step,
pickled; `plan_us`: pickled and unpickled once.
"""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from no_reuse_hooks import BLOCK_TOKENS, CHUNK_TOKENS, PROMPT
from no_reuse_hooks import Request as Prompted
from small_space import small_space
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.v1.outputs import KVConnectorOutput

import reprise
from reprise_engine.jobs import Geometry
from reprise_vllm.connector import RepriseConnector

sys.path.append(str(Path(__file__).parents[2] / "bench" / "gpu"))
from noop_connector import NoopConnector

#: Of a request: enough for its prompt.
BLOCKS_EACH = 64
MOST_REQUESTS = 64
STEPS, STEP_SECONDS = 1000, 0.005


class Request(Prompted):
    """As much of vLLM's as is read."""

    lora_request = prompt_embeds = pooling_params = kv_transfer_params = cache_salt = None
    mm_features: tuple[()] = ()
    skip_reading_prefix_cache = False

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.blocks = list(range(number * BLOCKS_EACH, (number + 1) * BLOCKS_EACH))

    def computed(self, tokens: int) -> None:
        self.num_computed_tokens += tokens
        self.all_token_ids.append(7)


class Engine:
    """What vLLM's scheduler and its worker call in a step."""

    def __init__(self, scheduler: Any, worker: Any, ranks: int) -> None:
        self.scheduler, self.worker, self.ranks = scheduler, worker, ranks
        self.took: dict[str, list[int]] = defaultdict(list)

    def timed(self, hook: Callable[..., Any], *given: Any) -> Any:
        side = "scheduler" if hook.__self__ is self.scheduler else "worker"  # type: ignore[attr-defined]
        began = time.perf_counter_ns()
        result = hook(*given)
        self.took[f"{side}.{hook.__name__}"].append(time.perf_counter_ns() - began)
        return result

    def step(self, output: Any) -> Any:
        scheduler, worker = self.scheduler, self.worker
        plan = self.timed(scheduler.build_connector_meta, output)
        self.timed(worker.handle_preemptions, plan)
        self.timed(worker.bind_connector_metadata, plan)
        self.timed(worker.has_connector_metadata)
        self.timed(worker.start_load_kv, None)
        self.timed(worker.wait_for_save)
        of_workers = KVConnectorOutput()
        self.timed(worker.get_finished, set())
        of_workers.invalid_block_ids = self.timed(worker.get_block_ids_with_load_errors)
        of_workers.kv_connector_stats = self.timed(worker.get_kv_connector_stats)
        self.timed(worker.get_kv_connector_kv_cache_events)
        report = of_workers.kv_connector_worker_meta = self.timed(worker.build_connector_worker_meta)
        self.timed(worker.clear_connector_metadata)
        for _ in range(self.ranks if report is not None else 1):  # every rank says the same
            self.timed(scheduler.update_connector_output, of_workers)
        self.timed(scheduler.get_kv_connector_stats)
        self.timed(scheduler.take_events)
        return plan

    def prefill(self, requests: list[Request]) -> None:
        for request in requests:
            self.scheduler.on_new_request(request)
            self.scheduler.get_num_new_matched_tokens(request, 0)
            blocks = SimpleNamespace(get_block_ids=lambda of=request: (of.blocks,))
            self.scheduler.update_state_after_alloc(request, blocks, 0)
        output = decode([])
        output.scheduled_new_reqs = [
            SimpleNamespace(req_id=r.request_id, block_ids=(r.blocks,), num_computed_tokens=0) for r in requests
        ]
        output.num_scheduled_tokens = {request.request_id: PROMPT for request in requests}
        self.step(output)


def work_elsewhere(memory: np.ndarray) -> None:
    """A step's time in which our code and data leave the processor's caches."""
    until = time.perf_counter() + STEP_SECONDS
    while time.perf_counter() < until:
        memory.sum()


def trimmed_mean(took: list[int]) -> float:
    """Without the slowest fiftieth: those in which something else ran."""
    return statistics.fmean(sorted(took)[: -len(took) // 50])


def decode(requests: list[Request]) -> SimpleNamespace:
    """The SchedulerOutput of a step in which these decode."""
    return SimpleNamespace(
        scheduled_new_reqs=[],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=[request.request_id for request in requests],
            new_block_ids=[None] * len(requests),
            num_computed_tokens=[request.num_computed_tokens for request in requests],
            resumed_req_ids=set(),
        ),
        num_scheduled_tokens=dict.fromkeys((request.request_id for request in requests), 1),
        preempted_req_ids=None,
    )


def connectors(kind: type[Any], socket: Path, ranks: int) -> tuple[Any, Any]:
    """The scheduler's and one worker's; ours with the cache, as after vLLM's start."""
    config = SimpleNamespace(
        kv_transfer_config=SimpleNamespace(
            kv_connector_extra_config={"socket": str(socket)},
            kv_load_failure_policy="recompute",
            engine_id="bench",
            is_kv_producer=True,
        ),
        parallel_config=SimpleNamespace(rank=0, world_size=ranks),
        model_config=SimpleNamespace(enforce_eager=False),
        compilation_config=SimpleNamespace(cudagraph_mode=None),
    )
    spec = SimpleNamespace(block_size=BLOCK_TOKENS)
    blocks = MOST_REQUESTS * BLOCKS_EACH
    caches = SimpleNamespace(num_blocks=blocks, kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec)])
    scheduler, worker = (kind(config, role, caches) for role in (KVConnectorRole.SCHEDULER, KVConnectorRole.WORKER))
    worker.register_kv_caches({"layers.0.attn": torch.zeros((2, blocks, BLOCK_TOKENS, 1, 2), dtype=torch.float16)})
    if isinstance(scheduler, RepriseConnector):
        guest, layout = scheduler._guest, worker._layout
        assert guest is not None
        geometry = Geometry(BLOCK_TOKENS, CHUNK_TOKENS, layout.block_bytes, ranks, BLOCK_TOKENS)
        space = small_space(chunk_tokens=CHUNK_TOKENS, head_size=2, layout="paged", ranks=ranks)
        guest.side = guest._side(space, geometry)
    return scheduler, worker


def main() -> None:
    """Starts a cache, lets requests prefill, measures their steps from then on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--running", type=int, default=4, choices=range(1, MOST_REQUESTS + 1), metavar="N")
    parser.add_argument("--ranks", type=int, default=1)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    memory = np.ones(1 << 20)
    figures: dict[str, Any] = {"running": given.running, "ranks": given.ranks}
    with tempfile.TemporaryDirectory() as folder:
        started = reprise.start_cache(data_dir=folder, memory="256MiB", disk="0", stop_when_unused=60)
        kinds = {"reprise": RepriseConnector, "noop": NoopConnector}
        engines = {
            name: Engine(*connectors(kind, started.socket_path, given.ranks), given.ranks)
            for name, kind in kinds.items()
        }
        requests = [Request(number) for number in range(given.running)]
        for engine in engines.values():
            engine.prefill(requests)
        for request in requests:
            request.computed(PROMPT)
        ours = engines["reprise"]
        guest, end = ours.scheduler._guest, time.monotonic() + 30
        while not guest.counters["saved_bytes"] or guest.side.open_jobs:  # until all is saved
            assert time.monotonic() < end
            ours.step(decode(requests))
            time.sleep(0.005)
        for pace, average in (("hot", statistics.median), ("paced", trimmed_mean)):
            for engine in engines.values():
                engine.took.clear()
            for _ in range(STEPS):
                for engine in engines.values():
                    if pace == "paced":
                        work_elsewhere(memory)
                    engine.step(decode(requests))  # as vLLM does: Python itself is at work when it calls us
                for request in requests:
                    request.computed(1)
            for name, engine in engines.items():
                hooks = {hook: average(of) / 1000 for hook, of in sorted(engine.took.items())}
                figures[f"{name}_{pace}_us"] = round(sum(hooks.values()), 2)
                figures[f"{name}_{pace}_hooks"] = {hook: round(us, 2) for hook, us in hooks.items()}
        plan = ours.scheduler.build_connector_meta(decode(requests))
        began = time.perf_counter_ns()
        for _ in range(STEPS):
            pickled = pickle.dumps(plan, protocol=5)
            pickle.loads(pickled)
        figures["plan_bytes"] = len(pickled)
        figures["plan_us"] = round((time.perf_counter_ns() - began) / 1000 / STEPS, 2)
        assert not ours.scheduler.faults
        assert not ours.worker.faults
        for engine in engines.values():
            engine.scheduler.shutdown()
            engine.worker.shutdown()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
