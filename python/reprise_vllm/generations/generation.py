"""What the connector asks of a generation of vLLM's interface, and what all of them have in common.

vLLM promises no stable interface. A generation says which hooks are called with which arguments, and answers where
releases differ. Its facts were read in the releases' own sources; tests/test_reprise_vllm/vllm_releases.jsonl has their
signatures. `contract.py` compares them with the vLLM at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Release = tuple[int, int]
#: A method's parameters without self or cls; None for what is no method, or may take what it likes.
Parameters = tuple[str, ...] | None
#: Members by name.
Members = Mapping[str, Parameters]


class Generation(Protocol):
    #: Members that every release of the generation has beside `common`, by class.
    required: Mapping[str, Members]
    #: Members that only some of its releases have, the same in each of them.
    sometimes: Mapping[str, Members]
    #: Whether the scheduler asks its own connector for statistics only in steps in which the workers had some.
    workers_speak_first: bool
    #: Whether several connectors may answer a request's end with parameters for another engine.
    merges_transfer_params: bool

    def hash_tokens(self, cache_config: Any, block_tokens: int) -> int:
        """Tokens that one entry of `Request.block_hashes` stands for."""

    def why_not(self, parallel_config: Any) -> str | None:
        """What of an engine this generation cannot tell the connector; None when it can."""


#: Where the classes are found of which something is relied on.
places: Mapping[str, str] = {
    "KVConnectorBase_V1": "vllm.distributed.kv_transfer.kv_connector.v1.base",
    "KVConnectorWorkerMetadata": "vllm.distributed.kv_transfer.kv_connector.v1.base",
    "KVConnectorStats": "vllm.distributed.kv_transfer.kv_connector.v1.metrics",
    "KVConnectorPromMetrics": "vllm.distributed.kv_transfer.kv_connector.v1.metrics",
    "KVConnectorOutput": "vllm.v1.outputs",
    "SchedulerOutput": "vllm.v1.core.sched.output",
    "NewRequestData": "vllm.v1.core.sched.output",
    "CachedRequestData": "vllm.v1.core.sched.output",
    "KVCacheBlocks": "vllm.v1.core.kv_cache_manager",
    "KVCacheConfig": "vllm.v1.kv_cache_interface",
    "KVCacheGroupSpec": "vllm.v1.kv_cache_interface",
    "KVCacheSpec": "vllm.v1.kv_cache_interface",
    "Request": "vllm.v1.request",
}

_fields: Mapping[str, tuple[str, ...]] = {
    "KVConnectorOutput": ("finished_recving", "kv_connector_worker_meta", "invalid_block_ids"),
    "SchedulerOutput": (
        "scheduled_new_reqs",
        "scheduled_cached_reqs",
        "num_scheduled_tokens",
        "preempted_req_ids",
    ),
    "NewRequestData": ("req_id", "block_ids", "num_computed_tokens"),
    "CachedRequestData": ("req_ids", "resumed_req_ids", "new_block_ids", "num_computed_tokens"),
    "KVCacheBlocks": ("get_block_ids",),
    "KVCacheConfig": ("num_blocks", "kv_cache_groups"),
    "KVCacheGroupSpec": ("kv_cache_spec",),
    "KVCacheSpec": ("block_size",),
    "Request": (
        "request_id",
        "num_computed_tokens",
        "num_tokens",
        "num_prompt_tokens",
        "prompt_token_ids",
        "all_token_ids",
        "block_hashes",
        "cache_salt",
        "lora_request",
        "mm_features",
        "prompt_embeds",
        "pooling_params",
        "kv_transfer_params",
        "skip_reading_prefix_cache",
    ),
}

#: What vLLM calls with which arguments, and what is read while requests run, in every release.
common: Mapping[str, Members] = {
    "KVConnectorBase_V1": {
        "__init__": ("vllm_config", "role", "kv_cache_config"),
        # the scheduler's
        "get_num_new_matched_tokens": ("request", "num_computed_tokens"),
        "update_state_after_alloc": ("request", "blocks", "num_external_tokens"),
        "build_connector_meta": ("scheduler_output",),
        "update_connector_output": ("connector_output",),
        "request_finished": ("request", "block_ids"),
        "reset_cache": (),
        # the worker's
        "register_kv_caches": ("kv_caches",),
        "get_handshake_metadata": (),
        "handle_preemptions": ("kv_connector_metadata",),
        "bind_connector_metadata": ("connector_metadata",),
        "has_connector_metadata": (),
        "start_load_kv": ("forward_context", "**kwargs"),
        "wait_for_layer_load": ("layer_name",),
        "save_kv_layer": ("layer_name", "kv_layer", "attn_metadata", "**kwargs"),
        "wait_for_save": (),
        "get_finished": ("finished_req_ids",),
        "get_block_ids_with_load_errors": (),
        "build_connector_worker_meta": (),
        # both
        "get_kv_connector_stats": (),
        "build_kv_connector_stats": ("data",),
        "build_prom_metrics": ("vllm_config", "metric_types", "labelnames", "per_engine_labelvalues"),
        "shutdown": (),
    },
    "KVConnectorWorkerMetadata": {"aggregate": ("other",)},
    "KVConnectorStats": {"data": None, "reset": (), "aggregate": ("other",), "reduce": (), "is_empty": ()},
    "KVConnectorPromMetrics": {
        "__init__": ("vllm_config", "metric_types", "labelnames", "per_engine_labelvalues"),
        "observe": ("transfer_stats_data", "engine_idx"),
    },
    **{name: dict.fromkeys(fields) for name, fields in _fields.items()},
}
