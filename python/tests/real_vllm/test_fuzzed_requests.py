"""The connector's own hooks, called by an engine without a model, with requests as clients could make them."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("vllm")

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole

from conftest import CacheProcess
from real_vllm.test_interface import config
from reprise_engine.plan import NOTHING, StepPlan, WorkerReport
from reprise_engine.scheduler.scheduler_side import SchedulerSide
from reprise_vllm.connector import RepriseConnector, RepriseMetadata, RepriseWorkerMetadata
from reprise_vllm.engine_guest import EngineGuest
from support.depth import seeds
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine
from test_reprise_engine.scheduler.simulated_guest import GEOMETRY, check_nothing_is_left, guest, prompt


class Hooks:
    """A scheduler side, as vLLM calls it."""

    def __init__(self, connector: RepriseConnector, side: SchedulerSide) -> None:
        self.connector, self.side = connector, side
        self.requests: dict[str, Request] = {}

    open_jobs = property(lambda self: self.side.open_jobs)
    keeps_blocks = property(lambda self: self.connector.has_pending_push_work())

    def arrived(self, request: Request, **_: Any) -> None:
        self.requests[request.request_id] = request
        self.connector.on_new_request(request)

    def match(self, request: Request, computed: int, **_: Any) -> tuple[int, bool]:
        found, slow = self.connector.get_num_new_matched_tokens(request, computed)
        assert found is not None
        return found, slow

    def allocated(self, request_id: str, blocks: Any, external_tokens: int) -> None:
        theirs = SimpleNamespace(get_block_ids=lambda: (blocks(),))
        self.connector.update_state_after_alloc(self.requests[request_id], theirs, external_tokens)

    def plan_step(self, output: Any) -> StepPlan:
        meta = self.connector.build_connector_meta(output)
        assert isinstance(meta, RepriseMetadata)
        return meta.plan or NOTHING

    def reported(self, report: WorkerReport) -> None:
        self.connector.update_connector_output(
            SimpleNamespace(kv_connector_worker_meta=RepriseWorkerMetadata(report), invalid_block_ids=set())
        )

    def finished(self, request: Request, blocks: Any) -> bool:
        keeps, _ = self.connector.request_finished(request, blocks)
        return keeps


def odd(rng: random.Random, depth: int = 0) -> Any:
    values: list[Any] = [None, True, False, 0, -7, 1e300, float("nan"), "", "read", "x" * 100_000, "\ud800", b"\0", ()]
    if depth > 4 or rng.random() < 0.6:
        return rng.choice(values)
    if rng.random() < 0.4:
        return [odd(rng, depth + 1) for _ in range(rng.randrange(4))]
    names: list[Any] = ["reprise", "read", "save", "valid_until", "do_remote_prefill", "", "\ud800", 5]
    return {rng.choice(names): odd(rng, depth + 1) for _ in range(rng.randrange(5))}


def as_vllm_has_it(request: Request, **other: Any) -> Request:
    plain: dict[str, Any] = {
        "lora_request": None,
        "mm_features": [],
        "prompt_embeds": None,
        "pooling_params": None,
        "kv_transfer_params": None,
        "skip_reading_prefix_cache": False,
        "cache_salt": request.salt or None,
    }
    for name, value in {**plain, **other}.items():
        setattr(request, name, value)
    return request


def odd_request(rng: random.Random, number: int) -> Request:
    shared = prompt(rng.randrange(3), 200)[: rng.randrange(1, 200)]
    name = rng.choice([f"r{number}", f"{number}\ud800", f"{number}\0" * 1000, f"../{number}"])
    request = Request(name, shared, max_tokens=rng.randrange(1, 6))
    adapter = SimpleNamespace(
        lora_int_id=rng.randrange(1, 20), lora_name=odd(rng), lora_path=rng.choice(["", "\0", "/", "a/b", "\ud800", 5])
    )
    ways: list[dict[str, Any]] = [
        {"kv_transfer_params": odd(rng)},
        {"kv_transfer_params": {"reprise": odd(rng)}},
        {"kv_transfer_params": {"reprise": {"read": odd(rng), "save": odd(rng)}}},
        {"cache_salt": odd(rng)},
        {"lora_request": adapter},
        {"mm_features": [odd(rng)]},
        {"prompt_embeds": odd(rng)},
        {"pooling_params": SimpleNamespace(task=odd(rng))},
    ]
    other = rng.choice(ways)
    salt = other.get("cache_salt")
    if isinstance(salt, str):
        request.salt = salt.encode("utf-8", "surrogatepass").hex()
    return as_vllm_has_it(request, **other)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("seed", seeds(small=1, full=2))
def test_no_request_of_a_client_raises_behind_a_hook(cache: CacheProcess, seed: int) -> None:
    side, links, counters = guest(cache)
    connector = RepriseConnector(config(), KVConnectorRole.SCHEDULER, SimpleNamespace())
    assert isinstance(connector._guest, EngineGuest)
    connector._guest.counters = connector._guest._admission._counters = counters
    connector._guest.side = side
    hooks = Hooks(connector, side)
    engine = SimulatedEngine(cast(SchedulerSide, hooks), GEOMETRY, blocks=180, seed=seed)
    engine.preempts = 0.1
    rng = random.Random(seed)
    for number in range(150):
        engine.add(odd_request(rng, number))
        engine.step()
        if len(engine.requests) > 6:
            engine.abort(rng.choice(list(engine.requests.values())))
    engine.run()
    assert connector.faults == {} and not connector.switched_off
    assert counters["requests_unreadable"] > 20
    for name in ("first", "second"):
        before = engine.loaded_tokens
        engine.add(as_vllm_has_it(Request(name, prompt(99, 203))))
        engine.run()
    assert engine.loaded_tokens - before >= 200
    check_nothing_is_left(engine, side, links, 180)


@pytest.mark.parametrize("tokens", [[1, -1, 3], [2**32], [1, None, 2], ["a"], [1.5]])
def test_tokens_that_are_none_cost_that_request_the_cache(cache: CacheProcess, tokens: list[Any]) -> None:
    side, links, counters = guest(cache)
    request = Request("odd", tokens * 50)
    root = SimpleNamespace(salt="", adapter="")
    side.arrived(cast(Any, request), root=cast(Any, root), may_read=True, may_save=True)
    assert side.match(cast(Any, request), 0, root=cast(Any, root), may_read=True, may_save=True) == (0, False)
    assert counters["requests_unreadable"] == 1 and counters["lookups"] == 0
    side.finished(cast(Any, request), [1, 2, 3])
    links.close()
