"""A connector that accepts no handshake but its own, as those that move KV between engines do. It moves nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
)


@dataclass
class StrictHandshake(KVConnectorHandshakeMetadata):  # type: ignore[misc]
    address: str


class StrictConnector(KVConnectorBase_V1):  # type: ignore[misc]
    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)

    def get_handshake_metadata(self) -> StrictHandshake:
        return StrictHandshake("here")

    def set_xfer_handshake_metadata(self, metadata: dict[int, Any]) -> None:
        self._check(metadata)

    def set_xfer_handshake_metadata_pp_aware(self, metadata: dict[tuple[int, int], Any]) -> None:
        self._check(metadata)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        return 0, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        return

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        return KVConnectorMetadata()

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        return

    def wait_for_layer_load(self, layer_name: str) -> None:
        return

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        return

    def wait_for_save(self) -> None:
        return

    @staticmethod
    def _check(metadata: dict[Any, Any]) -> None:
        if not all(isinstance(theirs, StrictHandshake) for theirs in metadata.values()):
            raise ValueError(f"a handshake of another connector: {metadata}")
