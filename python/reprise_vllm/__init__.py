"""Reprise behind vLLM.

    vllm serve MODEL --kv-transfer-config '{"kv_connector":"RepriseConnector",
        "kv_connector_module_path":"reprise_vllm","kv_role":"kv_both","kv_load_failure_policy":"recompute"}'

Importing this module needs neither vLLM nor torch; asking it for `RepriseConnector` does.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "RepriseConnector":
        from reprise_vllm.connector import RepriseConnector

        return RepriseConnector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
