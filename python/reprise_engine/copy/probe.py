"""Which of the CUDA copier's two methods is faster for this layout on this link, found out at start in a moment.

Blocks are saved into a scratch buffer first and the same bytes are loaded back, so the KV cache is left as it was. Each
figure is the best of three, from the call to the arrival of the last byte, beside one large plain copy of that moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from reprise_engine.copy.copier import EXTENT_BYTES
from reprise_engine.copy.copy_cuda import CudaCopier
from reprise_engine.copy.dma import IN_STREAM_ORDER
from reprise_engine.copy.move_torch import TorchMover
from reprise_engine.log import log
from reprise_engine.plan import LoadJob, SaveJob

if TYPE_CHECKING:
    from reprise_engine.copy.lane import CudaHandle, Lane
    from reprise_engine.copy.layout import Layout
    from reprise_engine.copy.mover import Mover


REPEATS = 3
#: Pages keep the engine's thread busy for longer than pieces do; they must win by this factor.
PAGES_MARGIN = 1.1
CHUNK_TOKENS = 64


@dataclass(slots=True)
class Scratch:
    """Registered memory in place of the pool."""

    memory: torch.Tensor
    address: int = field(init=False)
    bytes: int = field(init=False)
    view: npt.NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.address, self.bytes, self.view = self.memory.data_ptr(), self.memory.numel(), self.memory.numpy()

    def is_registered(self, offsets: npt.NDArray[np.int64]) -> bool:
        return True


def open_fastest(layout: Layout, staging_bytes: int) -> CudaCopier:
    """The copier for this machine: with Triton where it is there and its compiler works, else with torch.

    @throws RuntimeError, OSError when neither works.
    """
    try:
        from reprise_engine.copy.move_triton import TritonMover

        return _probed(layout, staging_bytes, TritonMover(layout))
    except Exception as error:
        log.warning("Triton cannot be used (%r): copies take torch's slower gathers", error)
    return _probed(layout, staging_bytes, TorchMover(layout))


def _probed(layout: Layout, staging_bytes: int, mover: Mover) -> CudaCopier:
    copier = CudaCopier(layout, staging_bytes, mover)
    try:
        choose_methods(copier, layout)
    except BaseException:
        copier.close()
        raise
    return copier


def choose_methods(copier: CudaCopier, layout: Layout) -> None:
    """Measures, sets each lane's method and fills `copier.facts`. Changes no block."""
    blocks = max(1, CHUNK_TOKENS // layout.block_tokens)
    if layout.payload_bytes(blocks) > EXTENT_BYTES or blocks > layout.num_blocks:
        blocks = 1
    payload = layout.payload_bytes(blocks)
    chunks = min(EXTENT_BYTES // payload, layout.num_blocks // blocks)
    if chunks == 0:
        return
    scratch = Scratch(torch.empty(EXTENT_BYTES, dtype=torch.uint8, pin_memory=True))
    columns = (
        0,
        0,
        np.arange(chunks, dtype=np.int64)[None, :] * payload,
        np.full(chunks, blocks, np.int32),
        np.zeros(chunks, np.int32),
        np.full(chunks, blocks, np.int32),
        np.arange(chunks * blocks, dtype=np.int32),
        np.zeros(chunks, np.int64),
        np.zeros(chunks, np.int64),
        0.0,
    )
    load, save = LoadJob(*columns, in_step=False), SaveJob(*columns)
    total = chunks * payload
    facts = copier.facts
    torch.cuda.synchronize(layout.device)
    for name, lane, run in (
        ("save", copier.saves, lambda: copier.save(save, 0, scratch)),
        ("load", copier.loads, lambda: copier.load(load, 0, scratch)),
    ):
        once = min(total, lane.memory.numel())
        facts[f"{name}_plain_gbs"] = _rate(once, _plain(copier, lane, scratch, once, to_host=name == "save"))
        for method in ("staged", "pages"):
            if method == "pages" and not copier.dma.has_batches:
                continue
            lane.method = method
            try:
                facts[f"{name}_{method}_gbs"] = _rate(total, run)
            except RuntimeError as error:
                if method == "staged":
                    raise
                facts[f"{name}_{method}_error"] = str(error)
        staged, pages = (float(facts.get(f"{name}_{method}_gbs", 0.0)) for method in ("staged", "pages"))
        lane.method = "pages" if pages > staged * PAGES_MARGIN else "staged"
        facts[f"{name}_method"] = lane.method
    log.info("copies on this link: %s", ", ".join(f"{key} {_short(value)}" for key, value in facts.items()))


def _plain(copier: CudaCopier, lane: Lane, scratch: Scratch, size: int, *, to_host: bool) -> Callable[[], CudaHandle]:
    on_device, in_host = (np.array([address], np.int64) for address in (lane.memory.data_ptr(), scratch.address))
    target, source = (in_host, on_device) if to_host else (on_device, in_host)

    def run() -> CudaHandle:
        sizes = np.array([size], np.int64)
        copier.dma.copy(target, source, sizes, lane.link.cuda_stream, order=IN_STREAM_ORDER, batch=False)
        return lane.end_on(lane.link)

    return run


def _rate(size: int, run: Callable[[], CudaHandle]) -> float:
    """GB/s of the best of a few runs; the one before them compiles and warms up."""
    best = float("inf")
    for _ in range(REPEATS + 1):
        begin = time.perf_counter()
        run().event.synchronize()
        best = min(best, time.perf_counter() - begin)
    return round(size / best / 1e9, 2)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
