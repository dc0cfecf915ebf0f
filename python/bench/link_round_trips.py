"""What the link costs an engine's loop: round trips of a long load and a long lookup, wall time and Python's own time.

python python/bench/link_round_trips.py          (starts a cache of its own; docs/python.md has the figures)
"""

import statistics
import tempfile
import time
from array import array
from collections.abc import Callable

from small_space import small_space

import reprise

CHUNK_TOKENS = 64
SLOT_BYTES = 64 * 1024
ROUNDS = 300


def measure(name: str, once: Callable[[], object]) -> None:
    """Prints the medians and the 99th percentile of `ROUNDS` rounds."""
    wall, own = [], []
    for _ in range(ROUNDS):
        wall_before, own_before = time.perf_counter(), time.process_time()
        once()
        wall.append((time.perf_counter() - wall_before) * 1000)
        own.append((time.process_time() - own_before) * 1000)
    p99 = sorted(wall)[int(ROUNDS * 0.99)]
    print(f"{name}: {statistics.median(wall):.3f} ms, p99 {p99:.3f} ms; Python {statistics.median(own):.3f} ms")


def main() -> None:
    """Saves 16,000 tokens and measures."""
    with tempfile.TemporaryDirectory() as folder:
        started = reprise.start_cache(data_dir=folder, memory="256MiB", disk="0", stop_when_unused=60)
        space = small_space(chunk_tokens=CHUNK_TOKENS)
        link = reprise.CacheLink(socket_path=str(started.socket_path), space=space, rank=0, slot_bytes=[SLOT_BYTES])
        assert link.connect(10)
        tokens, longer = array("I", range(16_000)), array("I", range(32_000))
        reserved = link.reserve(tokens)
        assert reserved is not None
        assert link.wait(reserved, 10)
        commit = link.commit([(part.lease, SLOT_BYTES) for part in reserved.parts])
        assert commit is not None
        assert link.wait(commit, 10)

        def load() -> None:
            pending = link.load(tokens, only_ready=True)
            assert pending is not None
            assert link.wait(pending, 10)
            assert len(pending.parts) == 250
            link.release([part.lease for part in pending.parts])

        def lookup() -> None:
            pending = link.lookup(longer)
            assert pending is not None
            assert link.wait(pending, 10)
            assert pending.hit_tokens == len(tokens)

        measure("load and release of 16,000 tokens, 250 chunks in memory", load)
        measure("lookup of 32,000 tokens, 16,000 known", lookup)
        measure("idle poll", link.poll)
        link.close()


if __name__ == "__main__":
    main()
