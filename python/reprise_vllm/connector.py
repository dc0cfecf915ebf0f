"""RepriseConnector: vLLM's connector interface, translated for the two sides.

vLLM makes two objects of this class in different processes: one with the scheduler (it talks to the cache), one with
each worker (it moves bytes). They meet in the metadata of a step. Which of these hooks a release calls, and what
differs between releases, is in `generations`. The hooks of every step that only hand over what lies ready cannot raise,
and go without the guard: it would be most of what they cost.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
)

from reprise_engine.log import log
from reprise_engine.options import parse_options
from reprise_engine.plan import NOTHING, StepPlan, WorkerLayout, WorkerReport
from reprise_engine.same_process import introduce
from reprise_engine.worker.worker import WorkerSide
from reprise_vllm.block_pool import BlockPoolRefs
from reprise_vllm.contract import differences, surface
from reprise_vllm.enclosing import check_load_failure_policy, enclosing_connector, handover_seconds
from reprise_vllm.engine_guest import EngineGuest
from reprise_vllm.generations import generation_of, known_releases
from reprise_vllm.guard import FaultBudget, guarded, guarded_by_request, note_fault
from reprise_vllm.metrics import RepriseMetrics
from reprise_vllm.registration import register
from reprise_vllm.stats import RepriseStats, counts_in

if TYPE_CHECKING:
    import torch


@dataclass
class RepriseMetadata(KVConnectorMetadata):  # type: ignore[misc]
    #: None: nothing is to be done, as in most steps. With several ranks it is pickled and sent in every one.
    plan: StepPlan | None = None


_nothing = RepriseMetadata()
#: Steps that vLLM is asked for, at most, until the workers have told their layouts.
_steps_for_layouts = 8


@dataclass
class RepriseWorkerMetadata(KVConnectorWorkerMetadata):  # type: ignore[misc]
    report: WorkerReport

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        assert isinstance(other, RepriseWorkerMetadata)
        self.report.merge(other.report)
        return self


@dataclass
class RepriseHandshake(KVConnectorHandshakeMetadata):  # type: ignore[misc]
    layout: WorkerLayout


class RepriseConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """Keeps every prompt's KV in the memory and disk tiers of Reprise. Options: `reprise_engine.options.Options`.

    Raises ValueError when its options cannot be used. Nothing else that goes wrong here reaches vLLM.
    """

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any = None) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        transfer = vllm_config.kv_transfer_config
        options = parse_options(transfer.kv_connector_extra_config, "kv_connector_extra_config of RepriseConnector")
        enclosing = enclosing_connector()
        check_load_failure_policy(transfer, enclosing)
        self.faults: dict[str, int] = {}
        self.budget = FaultBudget()
        self.switched_off = False
        self._socket_path = options.socket_path
        #: Among several connectors vLLM passes one handshake on to all of them, and some accept none but their own:
        #: layouts come with the first step instead, for which vLLM is asked to take one.
        self._is_one_of_several = enclosing is not None
        self._steps_to_ask_for = _steps_for_layouts if enclosing is not None else 0
        self._guest: EngineGuest | None = None
        self._worker: WorkerSide | None = None
        self._layout: WorkerLayout | None = None
        self._failed_blocks: set[int] = set()
        self._generation, is_known = generation_of(vllm.__version__)
        #: None: what is read here is not handed over, or we may not say anything about it.
        self._handover_seconds = handover_seconds(enclosing) if self._generation.merges_transfer_params else None
        found = differences(self._generation, surface())
        is_scheduler = role == KVConnectorRole.SCHEDULER
        if found:
            self.switched_off = True
            if is_scheduler:  # once, not by every worker as well
                log.warning(
                    "Reprise does nothing: the connector interface of vLLM %s is not the one it knows (%s)",
                    vllm.__version__,
                    "; ".join(found),
                )
            return
        if is_scheduler:
            if not is_known:
                log.warning(
                    "Reprise was made for vLLM %s and not tried with %s; the interface fits, so it runs",
                    known_releases,
                    vllm.__version__,
                )
            self._guest = EngineGuest(
                vllm_config, kv_cache_config, options, self._generation, beside_others=self._is_one_of_several
            )
        else:
            parallel = vllm_config.parallel_config
            self._worker = WorkerSide(
                rank=parallel.rank % parallel.world_size,
                world_size=parallel.world_size,
                staging_bytes=options.staging_bytes,
                by_layers=_calls_layer_hooks(vllm_config),
            )

    @property
    def requires_kv_delivery(self) -> bool:
        """A save that is dropped is a later miss."""
        return False

    def has_connector_metadata(self) -> bool:
        """Whether vLLM is to call the hooks of each layer: in steps with loads that arrive layer by layer."""
        return self._worker is not None and self._worker.waits_by_layer

    # The scheduler's hooks

    @guarded(lambda self: None)
    def set_xfer_handshake_metadata(self, metadata: dict[int, KVConnectorHandshakeMetadata]) -> None:
        self.set_xfer_handshake_metadata_pp_aware({(0, rank): theirs for rank, theirs in metadata.items()})

    @guarded(lambda self: None)
    def set_xfer_handshake_metadata_pp_aware(
        self, metadata: dict[tuple[int, int], KVConnectorHandshakeMetadata]
    ) -> None:
        ours = [theirs for _, theirs in sorted(metadata.items()) if isinstance(theirs, RepriseHandshake)]
        if self._guest is not None and ours and len(ours) == len(metadata):
            self._guest.arrange([theirs.layout for theirs in ours])

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        """Called once, where vLLM knows it. Without it, or where vLLM would not go on stepping for us, vLLM keeps all
        blocks of a request that is being saved.
        """
        if self._guest is None or not hasattr(KVConnectorBase_V1, "has_pending_push_work"):
            return
        try:
            self._guest.block_refs = BlockPoolRefs(gpu_block_pool)
        except (AttributeError, IndexError):
            log.info("Reprise: this vLLM's block pool is not the one it knows; ended requests keep all their blocks")

    @guarded(lambda self: False)
    def has_pending_push_work(self) -> bool:
        """Whether the engine is to take steps though it has no requests: for saves that still need them, and for the
        first one.
        """
        side = None if self._guest is None else self._guest.side
        return side.keeps_blocks if side is not None else self._steps_to_ask_for > 0

    @guarded_by_request(lambda self: None)
    def on_new_request(self, request: Any) -> None:
        if self._guest is not None:
            self._guest.arrived(request)

    @guarded_by_request(lambda self: (0, False))
    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        return (0, False) if self._guest is None else self._guest.match(request, num_computed_tokens)

    @guarded_by_request(lambda self: None)
    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        side = None if self._guest is None else self._guest.side
        if side is not None:
            side.allocated(request.request_id, lambda: blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        side = None if self._guest is None else self._guest.side
        if side is None:
            self._steps_to_ask_for = max(0, self._steps_to_ask_for - 1)
            return _nothing
        if self.switched_off and self.budget.has_rested():
            self.switched_off = False
            log.warning("Reprise tries again, after a pause")
        if not self.switched_off:
            try:
                plan = side.plan_step(scheduler_output)
                return _nothing if plan is NOTHING else RepriseMetadata(plan)
            except Exception:
                note_fault(self, "build_connector_meta")
        try:
            return RepriseMetadata(side.plan_after_fault())
        except Exception:
            note_fault(self, "build_connector_meta")
            return _nothing

    @guarded(lambda self: None, also_while_resting=True)
    def update_connector_output(self, connector_output: Any) -> None:
        theirs = connector_output.kv_connector_worker_meta
        side = None if self._guest is None else self._guest.side
        if side is not None and self._is_one_of_several:
            if connector_output.invalid_block_ids:
                side.taint_blocks(connector_output.invalid_block_ids)
            side.received(connector_output.finished_recving or ())
        if self._guest is None or not isinstance(theirs, RepriseWorkerMetadata):
            return
        if theirs.report.layouts:
            self._guest.told_in_a_step(theirs.report.layouts)
        if side is not None:
            side.reported(theirs.report)

    @guarded_by_request(lambda self: (False, None), is_last=True)
    def request_finished(self, request: Any, block_ids: Sequence[int]) -> tuple[bool, dict[str, Any] | None]:
        if self._guest is None:
            return False, None
        return self._guest.finished(request, block_ids), _for_the_other_engine(request, self._handover_seconds)

    def set_aside(self, request: Any) -> None:
        if self._guest is not None:
            self._guest.set_aside(request)

    @guarded(lambda self: False, also_while_resting=True)
    def reset_cache(self) -> bool | None:
        """What was stored is for other weights than this engine's: from here on it is a miss, for this engine alone.
        True: nothing of it is used any more. `reprise cache clear` is for everybody.
        """
        return self._guest is None or self._guest.reset()

    # The worker's hooks

    @guarded(lambda self: None)
    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        if self._worker is None:
            return
        try:
            groups = self._kv_cache_config.kv_cache_groups
            layout = self._worker.register(
                kv_caches, self._kv_cache_config.num_blocks, groups[0].kv_cache_spec.block_size
            )
            self._layout = WorkerLayout(layout.block_bytes, layout.signature, self._worker.largest_payload_bytes)
            if self._worker.world_size == 1:
                introduce(str(self._vllm_config.kv_transfer_config.engine_id), self._socket_path, self._worker)
        except ValueError as error:
            log.warning("Reprise does nothing: %s", error)

    @guarded(lambda self: None)
    def get_handshake_metadata(self) -> KVConnectorHandshakeMetadata | None:
        if self._layout is None or self._is_one_of_several:
            return None
        return RepriseHandshake(self._layout)

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        plan = _plan_in(kv_connector_metadata)
        if self._worker is not None and plan is not None:
            self._worker.before_forward(plan)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        plan = _plan_in(self._connector_metadata)
        if self._worker is None or plan is None:
            return
        try:
            self._worker.begin_step(plan)
        except Exception:
            note_fault(self, "start_load_kv")
            self._failed_blocks.update(plan.unloaded)
            for job in plan.loads:
                self._failed_blocks.update(job.block_ids.tolist())

    def wait_for_layer_load(self, layer_name: str) -> None:
        if self._worker is not None:
            self._worker.wait_for_layer(layer_name)

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        return

    def wait_for_save(self) -> None:
        return

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Of a connector that is switched off too: whoever waits for a load or a save must hear that it is over."""
        try:
            return (None, None) if self._worker is None else self._worker.end_step()
        except Exception:
            note_fault(self, "get_finished")
            return None, None

    def get_block_ids_with_load_errors(self) -> set[int]:
        failed, self._failed_blocks = self._failed_blocks, set()
        if self._worker is not None:
            failed |= self._worker.take_invalid_blocks()
        return failed

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        if self._worker is None:
            return None
        report = self._worker.take_report()
        if self._is_one_of_several and self._layout is not None:
            report = report or WorkerReport()
            report.layouts[self._worker.rank] = self._layout
            self._layout = None  # told
        return None if report is None else RepriseWorkerMetadata(report)

    # Both

    def get_kv_connector_stats(self) -> RepriseStats | None:
        if self._guest is None:
            return RepriseStats() if self._worker is not None and self._generation.workers_speak_first else None
        counts = self._guest.counters.taken()
        return RepriseStats(data=counts) if counts else None

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> RepriseStats | None:
        return RepriseStats(data=counts_in(data))

    @classmethod
    def build_prom_metrics(
        cls,
        vllm_config: Any,
        metric_types: dict[type, type],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> RepriseMetrics | None:
        try:
            return RepriseMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        except Exception:
            log.exception("Reprise has no figures in vLLM's metrics")
            return None

    def shutdown(self) -> None:
        for side in (self._guest, self._worker):
            try:
                if side is not None:
                    side.close()
            except Exception:
                note_fault(self, "shutdown")


register()

# A hook that a later vLLM demands must not keep it from starting: the check of the interface finds it.
RepriseConnector.__abstractmethods__ = frozenset()


def _plan_in(metadata: KVConnectorMetadata | None) -> StepPlan | None:
    return metadata.plan if isinstance(metadata, RepriseMetadata) else None


def _for_the_other_engine(request: Any, seconds: float | None) -> dict[str, Any] | None:
    """Of a prompt that is handed over: how long its blocks stay what they are. The proxy passes it on."""
    params = None if seconds is None else request.kv_transfer_params
    if seconds is None or not isinstance(params, Mapping) or not params.get("do_remote_decode"):
        return None
    return {"reprise": {"valid_until": time.time() + seconds}}


def _calls_layer_hooks(vllm_config: Any) -> bool:
    """Whether attention runs from Python each time: a captured graph replays it without the hooks."""
    mode = getattr(vllm_config.compilation_config, "cudagraph_mode", None)
    return bool(vllm_config.model_config.enforce_eager) or getattr(mode, "name", "") == "NONE"
