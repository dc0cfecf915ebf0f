"""Two GPUs, one rank on each: warm answers equal cold ones, and the times of prefix.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine_settings import EngineSettings
from prefix import Prefix


@dataclass(frozen=True)
class TensorParallel(Prefix):
    """Settings of this part. vLLM runs a process per rank; they find the connector by PYTHONPATH."""

    seconds: int = 200
    arms: tuple[str, ...] = ("none", "native", "lmcache", "reprise")
    ranks: int = 2

    def engine(self, base: EngineSettings) -> EngineSettings:
        engine = super().engine(base)
        longest = max(self.lengths)
        return replace(engine, tensor_parallel=self.ranks, kv_tokens=max(2 * longest, longest + 1024))
