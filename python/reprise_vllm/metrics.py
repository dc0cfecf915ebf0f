"""The connector's counters among vLLM's own Prometheus metrics, with the labels of those (model_name, engine).

vLLM clears its registry by the prefix `vllm:` when an engine is made a second time in one process; a counter without it
would then be there twice, which is an error. `LLM.get_metrics()` shows what has the prefix, too.
"""

from __future__ import annotations

from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics

from reprise_engine.counters import meanings
from reprise_vllm.stats import counts_in


class RepriseMetrics(KVConnectorPromMetrics):  # type: ignore[misc]
    """All counters are there from the start, at zero."""

    def __init__(
        self,
        vllm_config: Any,
        metric_types: dict[type, type],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        families = {
            name: self._counter_cls(name=f"vllm:reprise_{name}", documentation=meaning, labelnames=labelnames)
            for name, meaning in meanings.items()
        }
        #: By engine and name.
        self._counters: dict[int, dict[str, Any]] = {
            engine: {name: family.labels(*values) for name, family in families.items()}
            for engine, values in per_engine_labelvalues.items()
        }

    def observe(self, transfer_stats_data: Any, engine_idx: int = 0) -> None:
        counters = self._counters.get(engine_idx, {})
        for name, count in counts_in(transfer_stats_data).items():
            if name in counters:
                counters[name].inc(count)
