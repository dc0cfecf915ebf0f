"""The connector beside the vLLM that is installed, without an engine."""

from __future__ import annotations

import logging
import pickle
import time
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")

import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.v1.metrics.prometheus import unregister_vllm_metrics

import reprise_vllm
from reprise_engine.counters import meanings
from reprise_engine.plan import NOTHING, StepPlan, WorkerLayout, WorkerReport
from reprise_vllm import connector as module
from reprise_vllm.connector import RepriseConnector, RepriseHandshake, RepriseMetadata, RepriseWorkerMetadata
from reprise_vllm.contract import Surface, surface
from reprise_vllm.enclosing import handover_seconds
from reprise_vllm.guard import FaultBudget, faults_tolerated, shortest_pause_seconds
from reprise_vllm.stats import RepriseStats
from test_reprise_vllm.test_generations import recorded

hooks = "KVConnectorBase_V1"


def config() -> Any:
    return SimpleNamespace(
        kv_transfer_config=SimpleNamespace(
            kv_connector_extra_config={},
            kv_load_failure_policy="recompute",
            kv_role="kv_both",
            engine_id="e",
            is_kv_producer=True,
        ),
        parallel_config=SimpleNamespace(rank=0, world_size=1),
        model_config=SimpleNamespace(enforce_eager=True),
        compilation_config=SimpleNamespace(),
    )


def connector(role: str) -> RepriseConnector:
    return RepriseConnector(config(), KVConnectorRole[role], SimpleNamespace())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "vllm.reprise"]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    return caplog


def test_the_interface_at_hand_is_the_one_written_down_for_its_release() -> None:
    here = surface()
    version = vllm.__version__.partition("+")[0]
    for name, members in recorded[version].items():
        for member, parameters in members.items():
            assert member in here[name], f"{name}.{member}"
            assert parameters is None or here[name][member] == parameters, f"{name}.{member}"


def test_a_connector_that_does_not_fit_says_so_once_and_does_nothing(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    other: Surface = {**surface(), hooks: {**surface()[hooks], "get_finished": ("step",), "hand_over!": None}}
    monkeypatch.setattr(module, "surface", lambda: other)
    scheduler, worker = connector("SCHEDULER"), connector("WORKER")
    (line,) = warnings(log)
    assert line.startswith("Reprise does nothing") and "get_finished(step)" in line and "hand_over is new" in line
    request: Any = SimpleNamespace(request_id="r")
    scheduler.on_new_request(request)
    assert scheduler.get_num_new_matched_tokens(request, 0) == (0, False)
    scheduler.update_state_after_alloc(request, None, 0)
    meta = scheduler.build_connector_meta(SimpleNamespace())
    assert isinstance(meta, RepriseMetadata)
    assert len(pickle.dumps(meta)) < 100, "each step of several ranks sends it"
    scheduler.update_connector_output(SimpleNamespace(kv_connector_worker_meta=None))
    assert scheduler.request_finished(request, []) == (False, None)
    worker.register_kv_caches({})
    assert worker.get_handshake_metadata() is None
    worker.handle_preemptions(meta)
    worker.bind_connector_metadata(meta)
    worker.start_load_kv(None)
    worker.wait_for_layer_load("layer")
    assert worker.get_finished(set()) == (None, None)
    assert worker.get_block_ids_with_load_errors() == set()
    assert worker.build_connector_worker_meta() is worker.get_kv_connector_stats() is None
    for one in (scheduler, worker):
        one.shutdown()
        assert one.faults == {}


def test_a_release_that_is_not_known_runs_with_one_warning(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.34.0")
    assert not connector("SCHEDULER").switched_off and not connector("WORKER").switched_off
    (line,) = warnings(log)
    assert "not tried with 0.34.0" in line


def test_a_worker_that_is_switched_off_still_tells_what_has_ended() -> None:
    def fails(plan: StepPlan) -> None:
        raise RuntimeError("a fault")

    worker = connector("WORKER")
    ended: Any = SimpleNamespace(
        begin_step=fails, end_step=lambda: ({"saved"}, {"loaded"}), take_invalid_blocks=set, close=lambda: None
    )
    worker._worker = ended
    for _ in range(faults_tolerated):
        worker.bind_connector_metadata(RepriseMetadata(StepPlan(unloaded=[1, 2])))
        worker.start_load_kv(None)
        assert worker.get_block_ids_with_load_errors() == {1, 2}
    assert worker.switched_off
    assert worker.get_finished(set()) == ({"saved"}, {"loaded"})


def test_whatever_raises_behind_a_hook_is_a_miss_and_a_counter() -> None:
    def fails(*_: object, **__: object) -> Any:
        raise RuntimeError("a fault")

    class Side(SimpleNamespace):
        keeps_blocks = property(fails)

    side: Any = Side(allocated=fails, plan_step=fails, plan_after_fault=fails, reported=fails)
    aside: list[object] = []
    guest: Any = SimpleNamespace(
        arrived=fails, match=fails, arrange=fails, finished=fails, reset=fails, set_aside=aside.append, side=side
    )
    request: Any = SimpleNamespace(request_id="r")
    report = RepriseWorkerMetadata(WorkerReport())
    scheduler = connector("SCHEDULER")
    scheduler._guest = guest
    of_requests = {"on_new_request", "get_num_new_matched_tokens", "update_state_after_alloc", "request_finished"}
    hooks_that_fail = 0
    while not scheduler.switched_off:
        scheduler.on_new_request(request)
        assert scheduler.get_num_new_matched_tokens(request, 0) == (0, False)
        scheduler.update_state_after_alloc(request, None, 16)
        meta = scheduler.build_connector_meta(SimpleNamespace())
        assert isinstance(meta, RepriseMetadata) and meta.plan is None
        scheduler.update_connector_output(SimpleNamespace(kv_connector_worker_meta=report))
        assert scheduler.request_finished(request, []) == (False, None)
        assert scheduler.has_pending_push_work() is False
        scheduler.set_xfer_handshake_metadata({0: RepriseHandshake(WorkerLayout(1, "", 1))})
        assert scheduler.reset_cache() is False
        hooks_that_fail = hooks_that_fail or len(scheduler.faults)
    assert hooks_that_fail == 9
    assert faults_tolerated <= sum(n for hook, n in scheduler.faults.items() if hook not in of_requests)
    assert set(map(id, aside)) == {id(request)}

    # It rests, and tries again.
    now = [0.0]
    scheduler.budget, scheduler.switched_off = FaultBudget(lambda: now[0]), False
    for _ in range(faults_tolerated):
        scheduler.build_connector_meta(SimpleNamespace())
    side.plan_step = side.plan_after_fault = lambda *_: NOTHING
    guest.match = lambda *_: (64, False)
    scheduler.build_connector_meta(SimpleNamespace())
    assert scheduler.get_num_new_matched_tokens(request, 0) == (0, False)
    now[0] += shortest_pause_seconds
    scheduler.build_connector_meta(SimpleNamespace())
    assert scheduler.get_num_new_matched_tokens(request, 0) == (64, False)

    worker = connector("WORKER")
    other: Any = SimpleNamespace(register=fails, begin_step=fails, end_step=fails, close=fails, take_invalid_blocks=set)
    worker._worker = other
    worker.register_kv_caches({})
    worker.bind_connector_metadata(RepriseMetadata(StepPlan(unloaded=[3])))
    worker.start_load_kv(None)
    assert worker.get_finished(set()) == (None, None)
    assert worker.get_block_ids_with_load_errors() == {3}
    worker.shutdown()
    assert worker.faults == {"register_kv_caches": 1, "start_load_kv": 1, "get_finished": 1, "shutdown": 1}


def test_workers_send_empty_statistics_where_the_scheduler_is_not_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert connector("WORKER").get_kv_connector_stats() is None
    monkeypatch.setattr(vllm, "__version__", "0.23.0")
    stats = connector("WORKER").get_kv_connector_stats()
    assert stats is not None and bool(stats) and stats.is_empty()


def test_counters_are_in_the_registry_and_an_engine_can_be_made_again() -> None:
    from prometheus_client import Counter, Gauge, Histogram, generate_latest
    from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiKVConnectorPromMetrics

    def shown() -> list[str]:
        return [line for line in generate_latest().decode().splitlines() if line.startswith("vllm:reprise_")]

    types: dict[type, type] = {Gauge: Gauge, Counter: Counter, Histogram: Histogram}
    for _ in range(2):
        unregister_vllm_metrics()  # as vLLM does before it makes an engine's metrics
        metrics = RepriseConnector.build_prom_metrics(config(), types, ["model_name", "engine"], {0: ["m", "0"]})
        assert metrics is not None
        metrics.observe({"loaded_tokens": 32, "what a later release counts": 1})
        metrics.observe({"loaded_tokens": 8})
        metrics.observe(RepriseStats(data={"loaded_tokens": 4}))  # among several connectors, in one process
        metrics.observe({"data": {"loaded_tokens": 2}})  # and between processes
        several = MultiKVConnectorPromMetrics(
            config(), types, ["model_name", "engine"], {0: ["m", "0"]}, {"RepriseConnector": metrics}
        )
        several.observe({"RepriseConnector": RepriseStats(data={"loaded_tokens": 2})})
        assert 'vllm:reprise_loaded_tokens_total{engine="0",model_name="m"} 48.0' in shown()
        assert len([line for line in shown() if "_total{" in line]) == len(meanings)
    unregister_vllm_metrics()


def test_the_class_is_known_by_its_name() -> None:
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    reprise_vllm.register()
    assert KVConnectorFactory.get_connector_class_by_name("RepriseConnector") is RepriseConnector


@pytest.mark.parametrize(("top", "child"), [("fail", "recompute"), ("recompute", "fail")])
def test_inside_a_multi_connector_the_policy_at_the_top_is_the_one_that_counts(top: str, child: str) -> None:
    from vllm.config import KVTransferConfig
    from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiConnector

    entry = {
        "kv_connector": "RepriseConnector",
        "kv_connector_module_path": "reprise_vllm",
        "kv_role": "kv_both",
        "kv_load_failure_policy": child,
    }
    both = config()
    both.scheduler_config = SimpleNamespace(disable_hybrid_kv_cache_manager=True)
    both.kv_transfer_config = KVTransferConfig(
        kv_connector="MultiConnector",
        kv_role="kv_both",
        kv_load_failure_policy=top,
        kv_connector_extra_config={"connectors": [entry]},
    )
    for role in KVConnectorRole:
        if top == "recompute":
            (ours,) = MultiConnector(both, role, SimpleNamespace())._connectors
            assert isinstance(ours, RepriseConnector) and not ours.switched_off
            assert ours.get_handshake_metadata() is None
        else:
            with pytest.raises(ValueError, match="at the top of --kv-transfer-config"):
                MultiConnector(both, role, SimpleNamespace())


def test_of_a_prompt_that_is_handed_over_it_is_said_how_long_that_can_be_done() -> None:
    finished = SimpleNamespace(request_id="r", kv_transfer_params={"do_remote_decode": True})
    ours = connector("SCHEDULER")
    assert ours.request_finished(finished, []) == (False, None), "alone it hands nothing over"
    entries = [{"kv_connector_extra_config": {"kv_lease_duration": 6}}, {"kv_connector_extra_config": None}, {}]
    transfer = SimpleNamespace(kv_connector_extra_config={"connectors": entries})
    seconds = handover_seconds(SimpleNamespace(_vllm_config=SimpleNamespace(kv_transfer_config=transfer)))
    assert seconds == 4, "two thirds of the lease"
    ours._handover_seconds = seconds
    _, said = ours.request_finished(finished, [])
    assert said is not None and 3 < said["reprise"]["valid_until"] - time.time() <= 4
    for params in (None, {"do_remote_decode": False}, {"do_remote_prefill": True}, [True]):
        finished.kv_transfer_params = params
        assert ours.request_finished(finished, [])[1] is None


def test_alone_its_own_policy_counts() -> None:
    alone = config()
    alone.kv_transfer_config.kv_load_failure_policy = "fail"
    with pytest.raises(ValueError, match='"recompute" in --kv-transfer-config'):
        RepriseConnector(alone, KVConnectorRole.SCHEDULER, SimpleNamespace())


def test_where_vllm_passes_no_handshake_on_layouts_come_with_a_step_and_for_few_steps_it_is_asked() -> None:
    scheduler, worker = connector("SCHEDULER"), connector("WORKER")
    layout = WorkerLayout(1, "", 1)
    worker._layout, worker._is_one_of_several = layout, True
    assert worker.get_handshake_metadata() is None
    meta = worker.build_connector_worker_meta()
    assert isinstance(meta, RepriseWorkerMetadata) and meta.report.layouts == {0: layout}
    assert worker.build_connector_worker_meta() is None, "once"
    told: list[Any] = []
    guest: Any = SimpleNamespace(side=None, told_in_a_step=told.append, arrange=told.append)
    scheduler._guest, scheduler._steps_to_ask_for = guest, 2
    another: Any = object()
    scheduler.set_xfer_handshake_metadata({0: another})
    assert told == [] and scheduler.faults == {}
    asked = []
    for _ in range(3):
        asked.append(scheduler.has_pending_push_work())
        scheduler.build_connector_meta(SimpleNamespace())
    assert asked == [True, True, False]
    scheduler.update_connector_output(SimpleNamespace(kv_connector_worker_meta=meta))
    assert told == [{0: layout}]


def test_counts_add_up_among_several_connectors_in_one_process_and_between_processes() -> None:
    from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiConnector

    plain = {"loaded_tokens": 3}
    for given in (plain, {"data": plain}, RepriseStats(data=dict(plain)), {}, None):
        stats = RepriseConnector.build_kv_connector_stats(given)
        assert stats is not None and stats.reduce() == (plain if given else {})
    whole, fields = (
        MultiConnector.build_kv_connector_stats({"RepriseConnector": part})
        for part in (RepriseStats(data=dict(plain)), {"data": dict(plain)})
    )
    assert whole.aggregate(fields).reduce() == {"RepriseConnector": {"loaded_tokens": 6}}
