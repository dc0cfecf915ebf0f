"""Measures and checks the GPU copier without an engine: `PYTHONPATH=python python bench/gpu/copy_probe.py --out FILE`.

For each KV shape: opens the copier (its start-up probe decides), maps a pool file in /dev/shm, and for every method
  · checks random jobs with chunks moved in part, both ways, bit for bit against plain indexing, with compute under way;
  · measures a long prompt: GB/s each way beside plain copies, and the time the CPU needs to enqueue it;
  · checks and measures loads that were prefetched, and loads that are waited for layer by layer, the same way.
Prints one JSON line. A part that fails leaves its traceback there; the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from reprise_vllm.copier import EXTENT_BYTES
from reprise_vllm.copy_cuda import CudaCopier, CudaRegistrar
from reprise_vllm.dma import IN_STREAM_ORDER
from reprise_vllm.layout import Layout, read_layout
from reprise_vllm.move_torch import TorchMover
from reprise_vllm.plan import LoadJob, PoolRef, SaveJob, TransferJob
from reprise_vllm.pool_map import PoolMap
from reprise_vllm.probe import choose_methods, open_fastest
from reprise_vllm.worker import WorkerSide

Job = TypeVar("Job", LoadJob, SaveJob)
Caches = dict[str, torch.Tensor]
Ints = npt.NDArray[Any]
BLOCK_TOKENS = 16
CHUNK_BLOCKS = 4
DEVICE = "cuda"


def packed(layers: int, heads: int, content: int) -> Callable[[int], Caches]:
    """(NB, H, BS, 2D) over memory [B, N, H, C], as vLLM 0.26 has it."""

    def make(blocks: int) -> Caches:
        shape = (blocks, BLOCK_TOKENS, heads, content)
        return {
            f"layers.{i}": torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE).permute(0, 2, 1, 3)
            for i in range(layers)
        }

    return make


def latent(layers: int) -> Callable[[int], Caches]:
    def make(blocks: int) -> Caches:
        shape = (blocks, BLOCK_TOKENS, 576)
        return {f"layers.{i}": torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE) for i in range(layers)}

    return make


def heads_outside(layers: int, heads: int) -> Callable[[int], Caches]:
    """LHBNC: a run of 8 KiB for every head."""

    def make(blocks: int) -> Caches:
        shape = (heads, blocks, BLOCK_TOKENS, 256)
        return {
            f"layers.{i}": torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE).permute(1, 0, 2, 3)
            for i in range(layers)
        }

    return make


SHAPES: dict[str, Callable[[int], Caches]] = {
    "8b": packed(32, 8, 256),
    "1b": packed(16, 8, 128),
    "mla": latent(27),
    "heads_outside": heads_outside(32, 8),
}


def job_of(
    kind: type[Job],
    slots: Ints,
    counts: Ints,
    blocks: Ints,
    skips: Ints | None = None,
    takes: Ints | None = None,
    *,
    in_step: bool = True,
) -> Job:
    counts = np.asarray(counts, np.int32)
    zeros = np.zeros(counts.size, np.int64)
    columns: dict[str, Any] = {
        "job_id": 1,
        "epoch": 1,
        "slot_offsets": np.asarray(slots, np.int64)[None, :],
        "chunk_blocks": counts,
        "skip_blocks": np.zeros(counts.size, np.int32) if skips is None else np.asarray(skips, np.int32),
        "take_blocks": counts if takes is None else np.asarray(takes, np.int32),
        "block_ids": np.asarray(blocks, np.int32),
        "old_positions": zeros,
        "new_positions": zeros,
        "valid_until": float("inf"),
    }
    if kind is LoadJob:
        columns["in_step"] = in_step
    return kind(**columns)


def slot_places(layout: Layout, count: int) -> Ints:
    """Slots as the cache cuts them: multiples of 4 KiB, none across an extent's border."""
    slot = -(-layout.payload_bytes(CHUNK_BLOCKS) // 4096) * 4096
    each = EXTENT_BYTES // slot
    number = np.arange(count)
    return number // each * EXTENT_BYTES + number % each * slot


def random_job(kind: type[Job], layout: Layout, rng: np.random.Generator, chunks: int) -> Job:
    counts = rng.integers(1, CHUNK_BLOCKS + 1, chunks)
    counts[rng.random(chunks) < 0.7] = CHUNK_BLOCKS
    whole = rng.random(chunks) < 0.7
    skips = np.where(whole, 0, rng.integers(0, counts + 1))
    takes = np.where(whole, counts, rng.integers(0, counts - skips + 1))
    places = slot_places(layout, chunks * 2)
    slots = places[rng.permutation(places.size)[:chunks]] if rng.random() < 0.5 else places[:chunks]
    return job_of(kind, slots, counts, rng.permutation(layout.num_blocks)[: takes.sum()], skips, takes)


class Twin:
    """Plain copies: byte views of the caches on the device, chunk by chunk, segment by segment."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.segments = TorchMover(layout)._segments

    def parts(self, job: TransferJob, pool: Ints) -> Iterator[tuple[torch.Tensor, torch.Tensor, Ints]]:
        row = 0
        for chunk in range(job.chunk_blocks.size):
            count, skip, take = (int(c[chunk]) for c in (job.chunk_blocks, job.skip_blocks, job.take_blocks))
            blocks = torch.from_numpy(job.block_ids[row : row + take].astype(np.int64)).to(DEVICE)
            row += take
            for segment, start, run in zip(self.segments, self.layout.starts, self.layout.runs, strict=True):
                at = int(job.slot_offsets[0, chunk]) + count * int(start) + skip * int(run)
                yield segment, blocks, pool[at : at + take * int(run)].reshape(take, int(run))

    def save(self, job: TransferJob, pool: Ints) -> None:
        for segment, blocks, part in self.parts(job, pool):
            part[:] = segment.index_select(0, blocks).cpu().numpy()

    def load(self, job: TransferJob, pool: Ints) -> None:
        for segment, blocks, part in self.parts(job, pool):
            segment.index_copy_(0, blocks, torch.from_numpy(part.copy()).to(DEVICE))


def fill(caches: Caches) -> None:
    for tensor in caches.values():
        tensor.copy_(torch.randint(-128, 128, (tensor.numel(),), dtype=torch.int8, device=DEVICE).view(tensor.shape))


def same(a: Caches, b: Caches) -> bool:
    return all(torch.equal(a[key].contiguous().view(torch.int16), b[key].contiguous().view(torch.int16)) for key in a)


def check(copier: CudaCopier, layout: Layout, caches: Caches, pool: PoolMap, chunks: int, seed: int) -> dict[str, Any]:
    """Random jobs both ways beside their plain twins, with the compute stream working before and after."""
    rng, twin, wrong = np.random.default_rng(seed), Twin(layout), []
    size = int(slot_places(layout, chunks * 2)[-1]) + EXTENT_BYTES
    size = min(size, pool.bytes)
    heavy = torch.randn(4096, 4096, device=DEVICE, dtype=torch.bfloat16)
    for turn in range(4):
        fill(caches)
        pool.view[:size] = rng.integers(0, 256, size, dtype=np.uint8)
        save = random_job(SaveJob, layout, rng, chunks)
        expected = pool.view[:size].copy()
        twin.save(save, expected)
        torch.cuda.synchronize()
        # The step that computes these blocks is still under way when the save is enqueued …
        truth = {key: tensor.clone() for key, tensor in caches.items()}
        for tensor in caches.values():
            tensor.zero_()
        for _ in range(20):
            heavy = heavy @ heavy * 1e-3
        for key, tensor in caches.items():
            tensor.copy_(truth[key])
        handle = copier.save(save, 0, pool)
        copier.fence()
        # … and the next one overwrites them, behind the fence.
        for tensor in caches.values():
            tensor.zero_()
        torch.cuda.synchronize()
        if not handle.done or not np.array_equal(pool.view[:size], expected):
            wrong.append(f"save {turn}")

        load = random_job(LoadJob, layout, rng, chunks)
        for _ in range(20):
            heavy = heavy @ heavy * 1e-3
        for key, tensor in caches.items():  # these writes must come before the load's
            tensor.copy_(truth[key])
        handle = copier.load(load, 0, pool)
        seen = {key: tensor.clone() for key, tensor in caches.items()}  # the step that reads the blocks
        for tensor in caches.values():
            tensor.zero_()
        torch.cuda.synchronize()
        for key, tensor in caches.items():
            tensor.copy_(truth[key])
        twin.load(load, pool.view)
        if not handle.done or not same(seen, caches):
            wrong.append(f"load {turn}")
        del truth, seen
    return {"wrong": wrong, "jobs": 8}


def check_early(copier: CudaCopier, layout: Layout, caches: Caches, pool: PoolMap, chunks: int) -> dict[str, Any]:
    """Prefetched loads, dropped prefetches and layer-wise waits, bit for bit, with compute before and between."""
    rng, twin, wrong = np.random.default_rng(5), Twin(layout), []
    size = min(int(slot_places(layout, chunks * 2)[-1]) + EXTENT_BYTES, pool.bytes)
    heavy = torch.randn(4096, 4096, device=DEVICE, dtype=torch.bfloat16)
    counts = {"prefetched": 0, "layered": 0}
    fill(caches)
    truth = {key: tensor.clone() for key, tensor in caches.items()}
    for turn, fate in enumerate(("taken", "none", "forgotten", "overtaken") * 4):
        copier.by_layers = turn % 8 >= 4
        pool.view[:size] = rng.integers(0, 256, size, dtype=np.uint8)
        load = random_job(LoadJob, layout, rng, chunks)
        load.job_id = turn * 2 + 1
        torch.cuda.synchronize()
        for _ in range(20):
            heavy = heavy @ heavy * 1e-3
        for key, tensor in caches.items():
            tensor.copy_(truth[key])
        handle = copier.prefetch(load, 0, pool) if fate != "none" else None
        counts["prefetched"] += handle is not None
        if fate == "forgotten":
            copier.forget_prefetched()
        if fate in ("forgotten", "overtaken"):
            if handle is not None:
                handle.event.synchronize()
            pool.view[:size] = rng.integers(0, 256, size, dtype=np.uint8)  # the leases fell: others write there
            load.job_id += 1
        handle = copier.load(load, 0, pool)
        seen = {}
        counts["layered"] += handle.layers is not None
        for key, tensor in caches.items():
            if handle.layers is not None:
                handle.layers.wait(key)
            seen[key] = tensor.clone()
            heavy = heavy @ heavy * 1e-3
        left_out = handle.layers is not None and not handle.layers.finish()
        for tensor in caches.values():
            tensor.zero_()
        torch.cuda.synchronize()
        for key, tensor in caches.items():
            tensor.copy_(truth[key])
        twin.load(load, pool.view)
        if left_out or not handle.done or not same(seen, caches):
            wrong.append(f"{fate} {turn}")
    copier.by_layers = False
    return {"wrong": wrong, "jobs": 16, **counts}


def measure_early(copier: CudaCopier, layout: Layout, caches: Caches, pool: PoolMap, tokens: int) -> dict[str, Any]:
    """A claim, its step `gap_ms` later, and when what arrives: by events on the compute stream, ms after the claim.

    `first_layer` and `last_layer`: when the pass may read them. Chunks are of 16 MiB, as the connector chooses them.
    """
    blocks_each = max(1, (16 << 20) // layout.block_bytes)
    chunks = max(1, tokens // BLOCK_TOKENS // blocks_each)
    slot = -(-layout.payload_bytes(blocks_each) // 4096) * 4096
    each = EXTENT_BYTES // slot
    slots = np.arange(chunks) // each * EXTENT_BYTES + np.arange(chunks) % each * slot
    blocks = np.random.default_rng(2).permutation(layout.num_blocks)[: chunks * blocks_each]
    job = job_of(LoadJob, slots, np.full(chunks, blocks_each), blocks)
    names = list(caches)
    out: dict[str, Any] = {"mib": layout.payload_bytes(blocks.size) >> 20, "gap_ms": 5}
    for name, early, by_layers in (
        ("plain", False, False),
        ("prefetched", True, False),
        ("layered", False, True),
        ("both", True, True),
    ):
        rows = []
        copier.by_layers = by_layers
        for turn in range(6):
            torch.cuda.synchronize()
            job.job_id += 1
            claim, first, last = (torch.cuda.Event(enable_timing=True) for _ in range(3))
            claim.record()
            begin = time.perf_counter()
            begun = copier.prefetch(job, 0, pool) if early else None
            prefetch_ms = (time.perf_counter() - begin) * 1e3
            while time.perf_counter() - begin < 0.005:
                pass
            called = time.perf_counter()
            handle = copier.load(job, 0, pool)
            load_ms = (time.perf_counter() - called) * 1e3
            groups = 1 if handle.layers is None else len(handle.layers._events)
            for layer in names:
                if handle.layers is not None:
                    handle.layers.wait(layer)
                if layer == names[0]:
                    first.record()
            last.record()
            torch.cuda.synchronize()
            if turn > 0:
                rows.append((claim.elapsed_time(first), claim.elapsed_time(last), prefetch_ms, load_ms))
        columns = [round(statistics.median(column), 3) for column in zip(*rows, strict=True)]
        out[name] = dict(zip(("first_layer", "last_layer", "prefetch_call", "load_call"), columns, strict=True))
        out[name] |= {"prefetched": begun is not None, "groups": groups}
    copier.by_layers = False
    return out


def timed(run: Callable[[], Any], size: int, repeats: int = 7) -> dict[str, float]:
    walls, calls = [], []
    for turn in range(repeats + 1):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        called = time.perf_counter() - begin
        torch.cuda.synchronize()
        if turn > 0:
            walls.append(time.perf_counter() - begin)
            calls.append(called)
    return {
        "gbs": round(size / statistics.median(walls) / 1e9, 2),
        "best_gbs": round(size / min(walls) / 1e9, 2),
        "enqueue_ms": round(statistics.median(calls) * 1e3, 3),
        "ms": round(statistics.median(walls) * 1e3, 3),
    }


def plain(copier: CudaCopier, pool: PoolMap, *, to_host: bool) -> dict[str, float]:
    lane = copier.saves if to_host else copier.loads
    size = min(lane.memory.numel(), EXTENT_BYTES)
    device, host = np.array([lane.memory.data_ptr()]), np.array([pool.address])
    ends = (host, device) if to_host else (device, host)
    stream = lane.link.cuda_stream

    def run() -> None:
        for _ in range(16):
            copier.dma.copy(*ends, np.array([size]), stream, order=IN_STREAM_ORDER, batch=False)

    return timed(run, 16 * size)


def measure(copier: CudaCopier, layout: Layout, pool: PoolMap, tokens: int) -> dict[str, Any]:
    chunks = tokens // (CHUNK_BLOCKS * BLOCK_TOKENS)
    rng = np.random.default_rng(1)
    places = slot_places(layout, chunks)
    counts = np.full(chunks, CHUNK_BLOCKS)
    blocks = rng.permutation(layout.num_blocks)[: chunks * CHUNK_BLOCKS]
    total = layout.payload_bytes(chunks * CHUNK_BLOCKS)
    out: dict[str, Any] = {"mib": total >> 20, "chunks": chunks}
    for name, slots in (("neighbours", places), ("scattered", places[rng.permutation(chunks)])):
        load, save = (job_of(kind, slots, counts, blocks) for kind in (LoadJob, SaveJob))
        out[name] = {
            "save": timed(lambda save=save: copier.save(save, 0, pool), total),  # type: ignore[misc]
            "load": timed(lambda load=load: copier.load(load, 0, pool), total),  # type: ignore[misc]
        }
    load, save = job_of(LoadJob, places, counts, blocks, in_step=False), job_of(SaveJob, places, counts, blocks)
    out["both_ways"] = timed(lambda: (copier.load(load, 0, pool), copier.save(save, 0, pool)), 2 * total)
    return out


def attempt(out: dict[str, Any], name: str, run: Callable[[], Any]) -> None:
    begin = time.perf_counter()
    try:
        out[name] = run()
    except Exception:
        out[name] = {"error": traceback.format_exc(limit=8)}
    print(f"{name}: {time.perf_counter() - begin:.1f} s {json.dumps(out[name])[:600]}", file=sys.stderr, flush=True)


def whole_worker(caches: Caches, layout: Layout, ref: PoolRef, staging: int) -> dict[str, Any]:
    """A save and a load through WorkerSide, as a connector would call it."""
    from reprise_vllm.plan import StepPlan

    begin = time.perf_counter()
    worker = WorkerSide(0, 1, staging)
    worker.register(caches, layout.num_blocks, BLOCK_TOKENS)
    registered = time.perf_counter() - begin
    places, counts = slot_places(layout, 8), np.full(8, CHUNK_BLOCKS)
    blocks = np.arange(8 * CHUNK_BLOCKS)
    fill(caches)
    truth = {key: tensor.clone() for key, tensor in caches.items()}
    worker.begin_step(StepPlan(pool=ref, saves=[job_of(SaveJob, places, counts, blocks)]))
    first = worker.end_step()
    torch.cuda.synchronize()
    worker.end_step()
    saved = worker.take_report()
    for tensor in caches.values():
        tensor[: 8 * CHUNK_BLOCKS] = 0
    job = job_of(LoadJob, places, counts, blocks)
    job.job_id = 2
    worker.begin_step(StepPlan(loads=[job]))
    torch.cuda.current_stream().synchronize()
    worker.end_step()
    loaded = worker.take_report()
    good = same(truth, caches)
    invalid = worker.take_invalid_blocks()
    worker.close()
    return {
        "good": good and not invalid,
        "register_s": round(registered, 3),
        "first_step": repr(first),
        "reports": [repr(saved), repr(loaded)],
        "counters": dict(worker.counters),
    }


def shape_part(name: str, args: argparse.Namespace, ref: PoolRef) -> dict[str, Any]:
    out: dict[str, Any] = {}
    chunks = 24
    small = SHAPES[name](256)
    layout = read_layout(small, 256, BLOCK_TOKENS)
    out["layout"] = {"segments": int(layout.runs.size), "run": int(layout.runs[0]), "block_bytes": layout.block_bytes}
    staging = args.staging_mib << 20
    begin = time.perf_counter()
    copier = open_fastest(layout, staging)
    out["open_s"] = round(time.perf_counter() - begin, 3)
    out["facts_cold"] = dict(copier.facts)
    begin = time.perf_counter()
    choose_methods(copier, layout)
    out["probe_s"] = round(time.perf_counter() - begin, 4)
    out["facts"] = dict(copier.facts)
    cuda = CudaRegistrar(torch.device(DEVICE, 0))
    pool = PoolMap(ref, cuda)
    try:
        begin = time.perf_counter()
        out["all_registered"] = pool.wait_registered(60)
        out["register_pool_s"] = round(time.perf_counter() - begin, 3)
        chosen = {"load": copier.loads.method, "save": copier.saves.method}
        methods = ["staged", "pages"] if copier.dma.has_batches else ["staged"]
        for number, method in enumerate(methods):
            copier.loads.method = copier.saves.method = method
            attempt(out, f"check_{method}", lambda n=number: check(copier, layout, small, pool, chunks, n))
        copier.loads.method = copier.saves.method = "staged"
        attempt(out, "check_early", lambda: check_early(copier, layout, small, pool, chunks))
        attempt(out, "plain_load", lambda: plain(copier, pool, to_host=False))
        attempt(out, "plain_save", lambda: plain(copier, pool, to_host=True))
        copier.close()
        attempt(out, "check_torch_mover", lambda: check_torch(layout, small, pool, chunks, staging))
        attempt(out, "worker", lambda: whole_worker(small, layout, ref, staging))

        blocks = args.tokens // BLOCK_TOKENS + 64
        large_caches = SHAPES[name](blocks)
        large = read_layout(large_caches, blocks, BLOCK_TOKENS)
        copier = open_fastest(large, staging)
        copier.loads.method = "staged"
        attempt(out, "measure_early", lambda: measure_early(copier, large, large_caches, pool, args.tokens))
        for method in methods:
            copier.loads.method = copier.saves.method = method
            attempt(out, f"measure_{method}", lambda: measure(copier, large, pool, args.tokens))
        copier.close()
        # A pool that is not registered: correct, and how slow?
        unregistered = PoolMap(ref)
        copier = open_fastest(large, staging)
        attempt(out, "measure_unregistered", lambda: measure(copier, large, unregistered, args.tokens // 8))
        copier.close()
        unregistered.close()
        out["chosen"] = chosen
    finally:
        torch.cuda.synchronize()
        pool.close()
    return out


def check_torch(layout: Layout, caches: Caches, pool: PoolMap, chunks: int, staging: int) -> dict[str, Any]:
    copier = CudaCopier(layout, staging, TorchMover(layout))
    try:
        return check(copier, layout, caches, pool, chunks, 9)
    finally:
        copier.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokens", type=int, default=16_000)
    parser.add_argument("--staging-mib", type=int, default=384)
    parser.add_argument("--pool-mib", type=int, default=4096)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    args = parser.parse_args()
    path = Path(f"/dev/shm/reprise-copy-probe-{os.getpid()}")
    out: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0], "args": vars(args)}
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, args.pool_mib << 20)
        ref = PoolRef(epoch=1, path=str(path), bytes=args.pool_mib << 20, capacity_bytes=args.pool_mib << 20)
        out["device"] = torch.cuda.get_device_name(0)
        torch.zeros(1, device=DEVICE)
        for name in args.shapes.split(","):
            attempt(out, name, lambda name=name: shape_part(name, args, ref))  # type: ignore[misc]
    except Exception:
        out["error"] = traceback.format_exc()
    finally:
        path.unlink(missing_ok=True)
    line = json.dumps(out)
    Path(args.out).write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
