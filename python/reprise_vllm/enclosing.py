"""What vLLM acts on where our connector is one of several.

vLLM's MultiConnector hands each of its connectors a configuration of its own, made of that connector's entry in the
list; vLLM itself acts on the configuration at the top (`kv_load_failure_policy`), which it does not pass on. Nothing a
connector is given leads there, so it is read from the one that is constructing us.
"""

from __future__ import annotations

import inspect
from typing import Any

#: How long an engine keeps a prompt's blocks for the one that it hands them over to, where nothing else is set (Nixl).
_lease_seconds = 30.0
#: Of that time counts so much: the clocks of two hosts differ, and reading takes a while.
_share_that_counts = 2 / 3
#: Constructors between a MultiConnector's and ours.
_most_frames = 8


def enclosing_connector() -> Any | None:
    """The MultiConnector whose constructor is running, called from a constructor of ours; None: vLLM made us itself."""
    from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiConnector

    frame = inspect.currentframe()
    for _ in range(_most_frames):
        frame = None if frame is None else frame.f_back
        if frame is None:
            return None
        theirs = frame.f_locals.get("self")
        if frame.f_code.co_name == "__init__" and isinstance(theirs, MultiConnector):
            return theirs
    return None


def handover_seconds(enclosing: Any | None) -> float | None:
    """For how long, surely, a prompt that was read here can be handed over to another engine; None: it is not."""
    if enclosing is None:
        return None
    entries = enclosing._vllm_config.kv_transfer_config.kv_connector_extra_config.get("connectors", [])
    leases = [(entry.get("kv_connector_extra_config") or {}).get("kv_lease_duration") for entry in entries]
    return min((float(lease) for lease in leases if lease is not None), default=_lease_seconds) * _share_that_counts


def check_load_failure_policy(ours: Any, enclosing: Any | None) -> None:
    """Raises ValueError unless vLLM computes what could not be loaded. `ours`: the KVTransferConfig given to us."""
    top = ours if enclosing is None else enclosing._vllm_config.kv_transfer_config
    if top.kv_load_failure_policy == "recompute":
        return
    place = (
        "in --kv-transfer-config"
        if enclosing is None
        else 'at the top of --kv-transfer-config, beside "kv_connector": "MultiConnector" (what stands in its list of '
        "connectors has no effect)"
    )
    raise ValueError(
        f'RepriseConnector needs "kv_load_failure_policy": "recompute" {place}: with "{top.kv_load_failure_policy}" '
        "a load that fails would end the request"
    )
