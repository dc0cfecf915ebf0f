"""What the scheduler side of a long hit costs an engine's thread: everything but the copies.

A text that is stored whole in memory, in chunks of 128 tokens as an 8B model has them; its bytes are shrunk, and none
is moved. Each round is a new request: its arrival, vLLM's question, the blocks it is given, the step's plan, the
workers' report, and its end.

python python/bench/long_hit.py [--tokens 64000]          one line of JSON on standard output, medians of milliseconds
"""

import argparse
import json
import statistics
import tempfile
import time
from array import array
from collections import defaultdict
from itertools import pairwise
from types import SimpleNamespace

from small_space import small_space

import reprise
from reprise_engine.counters import Counters
from reprise_engine.jobs import Geometry
from reprise_engine.options import Options
from reprise_engine.plan import WorkerReport
from reprise_engine.scheduler.rank_links import RankLinks
from reprise_engine.scheduler.scheduler_side import SchedulerSide
from reprise_engine.scheduler.tracked_request import Root

BLOCK_TOKENS, CHUNK_TOKENS, BLOCK_BYTES = 16, 128, 512
ROUNDS = 40
HOOKS = ("arrived", "match", "allocated", "plan", "reported", "finished")


class Request(SimpleNamespace):
    """The part of vLLM's Request that is read."""

    @property
    def num_tokens(self) -> int:
        """The prompt, and nothing yet behind it."""
        return len(self.prompt_token_ids)

    @property
    def num_prompt_tokens(self) -> int:
        """The same."""
        return len(self.prompt_token_ids)

    @property
    def all_token_ids(self) -> list[int]:
        """The same, as vLLM has it: a list."""
        return list(self.prompt_token_ids)


def main() -> None:
    """Stores one text and asks for it again and again."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=64_000)
    tokens = [(i * 2_654_435_761 >> 15) % 32_000 for i in range(parser.parse_args().tokens)]
    geometry = Geometry(
        block_tokens=BLOCK_TOKENS, chunk_tokens=CHUNK_TOKENS, block_bytes=BLOCK_BYTES, ranks=1, hash_tokens=BLOCK_TOKENS
    )
    space = small_space(chunk_tokens=CHUNK_TOKENS)
    took: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        started = reprise.start_cache(data_dir=folder, memory="256MiB", disk="0", stop_when_unused=60)
        link = reprise.CacheLink(
            socket_path=str(started.socket_path), space=space, rank=0, slot_bytes=[geometry.slot_bytes]
        )
        links = RankLinks([link])
        assert links.connect(10)
        reserved = links.reserve(array("I", tokens), "", "", deadline_ms=5000)
        assert reserved is not None
        assert link.wait(reserved._reserves[0], 10)
        (chunks,) = reserved.take()
        links.commit([[c.lease for c in chunks]], [c.token_count // BLOCK_TOKENS * BLOCK_BYTES for c in chunks])
        blocks = list(range(-(-len(tokens) // BLOCK_TOKENS)))
        side = SchedulerSide(links, geometry, Options(lookup_deadline_ms=1000), Counters())
        nothing = SimpleNamespace(
            scheduled_new_reqs=[], scheduled_cached_reqs=SimpleNamespace(req_ids=[]), num_scheduled_tokens={}
        )
        for number in range(ROUNDS + 5):
            request = Request(
                request_id=f"r{number}", prompt_token_ids=list(tokens), num_computed_tokens=0, block_hashes=[]
            )
            root = Root("", "")
            times = [time.perf_counter()]
            side.arrived(request, root=root, may_read=True, may_save=True)
            times.append(time.perf_counter())
            found, slow = side.match(request, 0, root=root, may_read=True, may_save=True)
            times.append(time.perf_counter())
            assert found == (len(tokens) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
            assert not slow
            side.allocated(request.request_id, lambda: blocks, found)
            times.append(time.perf_counter())
            (job,) = side.plan_step(nothing).loads
            times.append(time.perf_counter())
            side.reported(WorkerReport(done={job.job_id: 1}))
            times.append(time.perf_counter())
            side.finished(request, [])
            times.append(time.perf_counter())
            if number < 5:
                continue
            for name, (before, after) in zip(HOOKS, pairwise(times), strict=True):
                took[name].append((after - before) * 1000)
            took["all"].append((times[-1] - times[0]) * 1000)
        side.close()
    print(json.dumps({"tokens": len(tokens)} | {name: round(statistics.median(of), 3) for name, of in took.items()}))


if __name__ == "__main__":
    main()
