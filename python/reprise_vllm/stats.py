"""The connector's counters in vLLM's log and its metrics."""

from __future__ import annotations

from dataclasses import dataclass

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats


@dataclass
class RepriseStats(KVConnectorStats):  # type: ignore[misc]
    """Counts since the last report, by name; `data` is what travels."""

    def reset(self) -> None:
        self.data.clear()

    def is_empty(self) -> bool:
        return not any(self.data.values())

    def aggregate(self, other: KVConnectorStats) -> RepriseStats:
        for name, count in other.data.items():
            self.data[name] = self.data.get(name, 0) + count
        return self

    def reduce(self) -> dict[str, int | float]:
        return dict(self.data)
