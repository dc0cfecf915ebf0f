"""What the connector finds in vLLM 0.27 to 0.33.

from 0.27   `requires_kv_delivery`: a cache says no, or a preempted request's answer would be computed again
from 0.29   loads of a step without hits run after its forward pass; hooks for tensors across layers are gone
from 0.30   `get_transfer_results` takes the place of `get_finished`, and calls it for connectors that have none
from 0.33   blocks for loads between steps may be given steps after they were promised; an engine that wakes from
            its sleep tells the layouts again
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reprise_vllm.generations.generation import Members


class From027To033:
    required: Mapping[str, Members] = {
        "KVConnectorBase_V1": {
            "bind_gpu_block_pool": ("gpu_block_pool",),
            "has_pending_push_work": (),
            "on_new_request": ("request",),
            "set_xfer_handshake_metadata_pp_aware": ("metadata",),
            "requires_kv_delivery": None,
        }
    }
    sometimes: Mapping[str, Members] = {"KVConnectorBase_V1": {"get_transfer_results": ("finished_req_ids",)}}
    workers_speak_first = False
    merges_transfer_params = True

    def hash_tokens(self, cache_config: Any, block_tokens: int) -> int:
        return int(getattr(cache_config, "prefix_match_unit", None) or block_tokens)

    def why_not(self, parallel_config: Any) -> str | None:
        return None
