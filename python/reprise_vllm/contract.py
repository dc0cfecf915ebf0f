"""What the connector relies on in vLLM, checked at start-up.

vLLM promises no stable interface. When a hook is missing or takes other arguments than those known here, the connector
says so once and does nothing, instead of failing in the middle of somebody's request.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

#: Hooks of KVConnectorBase_V1 that vLLM calls, with the arguments that it passes.
scheduler_hooks: Mapping[str, tuple[str, ...]] = {
    "get_num_new_matched_tokens": ("request", "num_computed_tokens"),
    "update_state_after_alloc": ("request", "blocks", "num_external_tokens"),
    "build_connector_meta": ("scheduler_output",),
    "update_connector_output": ("connector_output",),
    "request_finished": ("request", "block_ids"),
    "set_xfer_handshake_metadata": ("metadata",),
}
worker_hooks: Mapping[str, tuple[str, ...]] = {
    "register_kv_caches": ("kv_caches",),
    "handle_preemptions": ("kv_connector_metadata",),
    "bind_connector_metadata": ("connector_metadata",),
    "start_load_kv": ("forward_context",),
    "get_finished": ("finished_req_ids",),
    "get_block_ids_with_load_errors": (),
    "build_connector_worker_meta": (),
    "get_handshake_metadata": (),
}


def differences(base: type) -> list[str]:
    """How `base`, vLLM's KVConnectorBase_V1, differs from what is relied on. Empty when it does not."""
    found: list[str] = []
    for name, wanted in {**scheduler_hooks, **worker_hooks}.items():
        hook = getattr(base, name, None)
        if hook is None:
            found.append(f"{name} is missing")
            continue
        parameters = list(inspect.signature(hook).parameters.values())[1:]
        positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        required = [
            p.name
            for p in parameters
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in wanted
        ]
        if len(positional) < len(wanted) or required:
            found.append(f"{name} takes ({', '.join(p.name for p in parameters)}) and not ({', '.join(wanted)})")
    return found
