"""What the connector finds in vLLM 0.20 to 0.26.

    from 0.22   `on_new_request`: before, a busy engine cannot ask the cache early
    from 0.23   layouts arrive by (stage, rank): before, by rank, so that those of all stages but one are lost
    from 0.24   the scheduler asks its connector for statistics: before, only when the workers sent some with the step;
                the pool of blocks is handed over and steps are taken for saves alone: before, the blocks of an ended
                request are all kept until they are saved
    from 0.25   several connectors may return `kv_transfer_params`: before, vLLM ends over it
    from 0.26   hashes are made every `prefix_match_unit` tokens: before, the same was called `hash_block_size`

Until 0.26 a preempted request waits for no delivery (`requires_kv_delivery` does not exist).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reprise_vllm.generations.generation import Members, Release


class From020To026:
    required: Mapping[str, Members] = {"KVConnectorBase_V1": {"set_xfer_handshake_metadata": ("metadata",)}}
    sometimes: Mapping[str, Members] = {
        "KVConnectorBase_V1": {
            "bind_gpu_block_pool": ("gpu_block_pool",),
            "has_pending_push_work": (),
            "on_new_request": ("request",),
            "set_xfer_handshake_metadata_pp_aware": ("metadata",),
        }
    }

    def __init__(self, release: Release) -> None:
        self._release = release
        self.workers_speak_first = release < (0, 24)
        self.merges_transfer_params = release >= (0, 25)

    def hash_tokens(self, cache_config: Any, block_tokens: int) -> int:
        name = "hash_block_size" if self._release < (0, 26) else "prefix_match_unit"
        return int(getattr(cache_config, name, None) or block_tokens)

    def why_not(self, parallel_config: Any) -> str | None:
        if self._release < (0, 23) and parallel_config.pipeline_parallel_size > 1:
            return "pipeline parallel needs vLLM 0.23: before, a connector learns the layouts of one stage only"
        return None
