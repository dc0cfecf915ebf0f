"""vLLM as a guest of Reprise: its connector, and all that knows vLLM.

    vllm serve MODEL --kv-transfer-config '{"kv_connector":"RepriseConnector",
        "kv_connector_module_path":"reprise_vllm","kv_role":"kv_both","kv_load_failure_policy":"recompute"}'

Importing this module needs neither vLLM nor torch; asking it for `RepriseConnector` does.

vLLM calls `register` in each of its processes (the entry point in pyproject.toml), so that the class is known by its
name: its MultiConnector looks it up so, and `kv_connector_module_path` may be left out.
"""

from typing import Any

from reprise_engine.log import log_under
from reprise_vllm.registration import register

__all__ = ["register"]

log_under("vllm")


def __getattr__(name: str) -> Any:
    if name == "RepriseConnector":
        from reprise_vllm.connector import RepriseConnector

        return RepriseConnector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
