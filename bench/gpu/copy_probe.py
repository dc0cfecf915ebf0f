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
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from copy_checks import check, check_early, check_torch, whole_worker
from copy_jobs import BLOCK_TOKENS, DEVICE, SHAPES, pool_file
from copy_times import measure, measure_early, plain
from reprise_engine.copy.copy_cuda import CudaRegistrar
from reprise_engine.copy.layout import read_layout
from reprise_engine.copy.pool_map import PoolMap
from reprise_engine.copy.probe import choose_methods, open_fastest
from reprise_engine.plan import PoolRef


def attempt(out: dict[str, Any], name: str, run: Callable[[], Any]) -> None:
    begin = time.perf_counter()
    try:
        out[name] = run()
    except Exception:
        out[name] = {"error": traceback.format_exc(limit=8)}
    print(f"{name}: {time.perf_counter() - begin:.1f} s {json.dumps(out[name])[:600]}", file=sys.stderr, flush=True)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokens", type=int, default=16_000)
    parser.add_argument("--staging-mib", type=int, default=512)
    parser.add_argument("--pool-mib", type=int, default=4096)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    args = parser.parse_args()
    out: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0], "args": vars(args)}
    try:
        out["device"] = torch.cuda.get_device_name(0)
        torch.zeros(1, device=DEVICE)
        with pool_file(args.pool_mib) as ref:
            for name in args.shapes.split(","):
                attempt(out, name, lambda name=name: shape_part(name, args, ref))  # type: ignore[misc]
                Path(args.out).write_text(json.dumps(out) + "\n")  # should the next one be ended from outside
    except Exception:
        out["error"] = traceback.format_exc()
    line = json.dumps(out)
    Path(args.out).write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
