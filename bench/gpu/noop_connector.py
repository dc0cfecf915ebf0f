"""A vLLM connector that does nothing: what is left of an arm with a connector when its cache costs no time at all."""

from __future__ import annotations

from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata


class NoopMetadata(KVConnectorMetadata):
    """Empty."""


class NoopConnector(KVConnectorBase_V1):
    """Knows nothing, loads nothing, saves nothing."""

    @property
    def requires_kv_delivery(self) -> bool:
        return False

    def has_connector_metadata(self) -> bool:
        """False: vLLM then leaves the hooks of each layer out."""
        return False

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        return 0, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        return

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        return NoopMetadata()

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        return

    def wait_for_layer_load(self, layer_name: str) -> None:
        return

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        return

    def wait_for_save(self) -> None:
        return
