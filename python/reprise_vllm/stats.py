"""The connector's counters in vLLM's log and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats


@dataclass
class RepriseStats(KVConnectorStats):  # type: ignore[misc]
    """Counts since the last report, by name; `data` is what travels."""

    def __getitem__(self, name: str) -> Any:
        """Among several connectors some releases (0.29 is one) read the object as what it becomes between processes,
        also where all is one process.
        """
        return {"data": self.data}[name]

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


def counts_in(given: Any) -> dict[str, int]:
    """Counts by name, as vLLM hands them on: as they are; among several connectors, by release and process, inside the
    object that holds them, or inside its only field.
    """
    if isinstance(given, RepriseStats):
        given = given.data
    elif isinstance(given, Mapping) and isinstance(given.get("data"), Mapping):
        given = given["data"]
    return dict(given) if isinstance(given, Mapping) else {}
