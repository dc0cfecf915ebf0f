"""What the vLLM connector costs an engine in which nothing is ever read again: main-thread time of every hook.

64 requests of 1,000 tokens in flight, 50 tokens of answer, a KV cache that just holds them, an 8B shape's counts of
layers, blocks, chunks and pieces; its bytes are shrunk, and none is moved: CUDA is counted, not run. The cache is real.

python python/bench/no_reuse_hooks.py [--requests N] [--step-ms MS]        one line of JSON on standard output

`us_per_request`, `us_per_step`: CPU time of the engine's thread in our hooks (a busy machine does not change it much;
`wall_us_per_request` has the waits too). `other_threads_us_per_request`: CPU time of all other threads of the process,
which take the interpreter from the engine. `cuda_per_request`: calls that a real
device would cost about 2 to 5 microseconds each (a kernel: 20 to 40). `waiting_steps_per_request`: steps that a request
waited for blocks, of which those of finished requests are kept while they are saved.
"""

import argparse
import contextlib
import gc
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from small_space import small_space

import reprise
from reprise_engine.copy import copy_cuda, lane
from reprise_engine.copy.mover import Upload
from reprise_engine.copy.pieces import CutJob
from reprise_engine.counters import Counters
from reprise_engine.jobs import Geometry
from reprise_engine.options import Options
from reprise_engine.scheduler.block_refs import BlockRefs
from reprise_engine.scheduler.rank_links import RankLinks
from reprise_engine.scheduler.scheduler_side import SchedulerSide
from reprise_engine.scheduler.tracked_request import Root
from reprise_engine.worker import worker
from reprise_engine.worker.worker import WorkerSide

BLOCK_TOKENS, CHUNK_TOKENS, LAYERS = 16, 128, 32
BLOCKS, IN_FLIGHT, PROMPT, ANSWER, STEP_TOKENS = 4280, 64, 1000, 50, 16_384
#: A place of the staging ring holds four chunks, as 64 MiB do.
PLACE_CHUNKS = 4
#: What vLLM does for a new request before it looks at the next.
ADD_SECONDS = 0.0003


class Cuda:
    """Counts what is asked of it. A step later all of it has happened."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.step = 0
        self.stepped = threading.Condition()
        self.compute = Stream(self)

    def next_step(self) -> None:
        with self.stepped:
            self.step += 1
            self.stepped.notify_all()

    def install(self) -> None:
        """In the modules that ask torch."""

        @contextlib.contextmanager
        def entered(_: object) -> Iterator[None]:
            yield

        cuda = SimpleNamespace(
            Stream=lambda _device: Stream(self),
            Event=lambda **_kind: Event(self),
            device=entered,
            set_device=lambda _device: None,
            current_stream=lambda _device: self.compute,
            stream=entered,
            OutOfMemoryError=MemoryError,
        )
        fake = SimpleNamespace(
            cuda=cuda,
            version=SimpleNamespace(hip=None),
            uint8=torch.uint8,
            int64=torch.int64,
            empty=lambda shape, dtype, device=None, pin_memory=False: torch.empty(shape, dtype=dtype),
        )
        for module in (copy_cuda, lane):
            vars(module)["torch"] = fake
        vars(copy_cuda)["Dma"] = lambda *, rocm: self
        lane.MIN_PLACE_BYTES = lane.PAGE_BYTES = 1

    def copy(self, targets: Any, sources: Any, sizes: Any, stream: int, *, order: int, batch: bool) -> None:
        self.calls["copy_batches"] += 1
        self.calls["copies"] += sizes.size

    def clear(self, address: int, size: int, stream: int) -> None:
        self.calls["clears"] += 1


class Stream:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.cuda_stream = 1

    def wait_event(self, event: object) -> None:
        self.cuda.calls["waits"] += 1

    wait_stream = wait_event

    def synchronize(self) -> None:
        pass


class Event:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.recorded = 0

    def record(self, _stream: object = None) -> None:
        self.cuda.calls["events"] += 1
        self.recorded = self.cuda.step

    def query(self) -> bool:
        return self.cuda.step > self.recorded

    def synchronize(self) -> None:
        with self.cuda.stepped:
            self.cuda.stepped.wait_for(self.query)


class Mover:
    name = "counted"

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda

    def begin(self, cut: CutJob, upload: Upload, *, to_engine: bool) -> torch.Tensor:
        return upload(cut.table, None)

    def move(self, *_: object, to_engine: bool) -> None:
        self.cuda.calls["kernels"] += 1


class Request:
    """As much of vLLM's as is read."""

    def __init__(self, number: int) -> None:
        rng = random.Random(number)
        self.request_id = f"r{number}"
        self.prompt_token_ids = [rng.randrange(100_000) for _ in range(PROMPT)]
        self.all_token_ids = list(self.prompt_token_ids)
        self.block_hashes = [rng.randbytes(32) for _ in range((PROMPT + ANSWER) // BLOCK_TOKENS)]
        self.num_prompt_tokens = PROMPT
        self.num_computed_tokens = 0
        self.blocks: list[int] = []
        self.arrived_in = self.scheduled_in = 0

    @property
    def num_tokens(self) -> int:
        return len(self.all_token_ids)


class Engine:
    """vLLM's scheduler, as far as it calls us, and its worker."""

    def __init__(self, side: SchedulerSide, worker_side: WorkerSide, cuda: Cuda, step_seconds: float) -> None:
        self.side, self.worker, self.cuda = side, worker_side, cuda
        self.step_seconds = step_seconds
        self.free = deque(range(BLOCKS - 1))
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.held: dict[str, Request] = {}
        self.spent: Counter[str] = Counter()
        self.kept: Counter[int] = Counter()
        self.left: set[int] = set()
        self.steps = self.waited = self.held_blocks = self.wall = 0

    def hold(self, block_ids: Sequence[int]) -> None:
        self.kept.update(block_ids)

    def release(self, block_ids: Sequence[int]) -> None:
        for block in block_ids:
            del self.kept[block]
            if block in self.left:
                self.left.discard(block)
                self.free.append(block)

    def timed(self, name: str, hook: Callable[..., Any], *given: Any, **named: Any) -> Any:
        began, began_wall = time.thread_time_ns(), time.perf_counter_ns()
        result = hook(*given, **named)
        self.spent[name] += time.thread_time_ns() - began
        self.wall += time.perf_counter_ns() - began_wall
        return result

    def add(self, request: Request) -> None:
        time.sleep(ADD_SECONDS)
        request.arrived_in = self.steps
        self.timed("arrived", self.side.arrived, request, root=Root("", ""), may_read=True, may_save=True)
        self.waiting.append(request)

    def run(self, requests: list[Request]) -> None:
        coming = deque(requests)
        while coming or self.waiting or self.running or self.held or self.left:
            while coming and len(self.waiting) + len(self.running) < IN_FLIGHT:
                self.add(coming.popleft())
            self.one_step()

    def one_step(self) -> None:
        self.steps += 1
        self.held_blocks += sum(len(request.blocks) for request in self.held.values()) + len(self.left)
        new, scheduled = [], {}
        for request in self.running:
            scheduled[request.request_id] = 1
        cached = SimpleNamespace(
            req_ids=[request.request_id for request in self.running],
            new_block_ids=[self.grow(request, request.num_computed_tokens + 1) for request in self.running],
            num_computed_tokens=[request.num_computed_tokens for request in self.running],
            resumed_req_ids=set(),
        )
        budget = STEP_TOKENS - len(scheduled)
        while self.waiting and budget >= PROMPT and len(self.free) >= -(-(PROMPT + ANSWER) // BLOCK_TOKENS):
            request = self.waiting[0]
            self.timed("match", self.side.match, request, 0, root=Root("", ""), may_read=True, may_save=True)
            self.waiting.popleft()
            self.grow(request, PROMPT + ANSWER)
            self.timed("allocated", self.side.allocated, request.request_id, lambda r=request: r.blocks, 0)
            self.waited += self.steps - 1 - request.arrived_in
            scheduled[request.request_id] = PROMPT
            budget -= PROMPT
            new.append(request)
        output = SimpleNamespace(
            scheduled_new_reqs=[
                SimpleNamespace(req_id=r.request_id, block_ids=(list(r.blocks),), num_computed_tokens=0) for r in new
            ],
            scheduled_cached_reqs=cached,
            num_scheduled_tokens=scheduled,
            preempted_req_ids=None,
        )
        plan = self.timed("plan_step", self.side.plan_step, output)
        self.timed("before_forward", self.worker.before_forward, plan)
        self.timed("begin_step", self.worker.begin_step, plan)
        sent, _ = self.timed("end_step", self.worker.end_step)
        report = self.timed("take_report", self.worker.take_report)
        time.sleep(self.step_seconds)
        self.cuda.next_step()
        if report is not None:
            self.timed("reported", self.side.reported, report)
        for request_id in sent or ():
            self.let_go(self.held.pop(request_id))
        for request in list(self.running):
            self.computed(request, 1)
        for request in new:
            self.computed(request, PROMPT)
            self.running.append(request)

    def computed(self, request: Request, tokens: int) -> None:
        request.num_computed_tokens += tokens
        request.all_token_ids.append(7)
        if len(request.all_token_ids) < PROMPT + ANSWER:
            return
        self.running.remove(request)
        if self.timed("finished", self.side.finished, request, list(request.blocks)):
            self.held[request.request_id] = request
        else:
            self.let_go(request)

    def grow(self, request: Request, tokens: int) -> tuple[list[int]] | None:
        missing = -(-tokens // BLOCK_TOKENS) - len(request.blocks)
        fresh = [self.free.popleft() for _ in range(missing)]
        request.blocks += fresh
        return (fresh,) if fresh else None

    def let_go(self, request: Request) -> None:
        for block in request.blocks:
            if block in self.kept:
                self.left.add(block)
            else:
                self.free.append(block)
        request.blocks = []


def main() -> None:
    """Starts a cache, runs the requests, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=384, help="after 64 that warm up")
    parser.add_argument("--step-ms", type=float, default=10, help="what the device takes for a step")
    parser.add_argument("--no-block-refs", action="store_true", help="as a vLLM that does not lend its block pool")
    given = parser.parse_args()
    cuda = Cuda()
    cuda.install()
    caches = {
        f"model.layers.{i}.self_attn.attn": torch.zeros((2, BLOCKS, BLOCK_TOKENS, 1, 2), dtype=torch.float16)
        for i in range(LAYERS)
    }

    def open_copier(layout: Any, staging_bytes: int) -> tuple[Any, None]:
        return copy_cuda.CudaCopier(layout, staging_bytes, Mover(cuda)), None

    vars(worker)["open_copier"] = open_copier
    places = lane.LOAD_PLACES + lane.SAVE_PLACES
    block_bytes = LAYERS * 2 * BLOCK_TOKENS * 2 * 2
    geometry = Geometry(BLOCK_TOKENS, CHUNK_TOKENS, block_bytes, 1, BLOCK_TOKENS)
    worker_side = WorkerSide(0, 1, places * PLACE_CHUNKS * geometry.slot_bytes)
    assert worker_side.register(caches, BLOCKS, BLOCK_TOKENS).block_bytes == block_bytes
    with tempfile.TemporaryDirectory() as folder:
        started = reprise.start_cache(data_dir=Path(folder), memory="1GiB", disk="0", stop_when_unused=60)
        space = small_space(chunk_tokens=CHUNK_TOKENS, layers=LAYERS, head_size=2, layout="paged")
        link = reprise.CacheLink(
            socket_path=str(started.socket_path), space=space, rank=0, slot_bytes=[geometry.slot_bytes]
        )
        links = RankLinks([link])
        assert links.connect(10), link.last_error
        counters = Counters()
        block_refs: list[BlockRefs | None] = [None]
        side = SchedulerSide(
            links, geometry, Options(), counters, prefetcher=lambda: worker_side, block_refs=lambda: block_refs[0]
        )
        engine = Engine(side, worker_side, cuda, given.step_ms / 1000)
        requests = [Request(number) for number in range(IN_FLIGHT + given.requests)]
        if not given.no_block_refs:
            block_refs[0] = engine
        engine.run(requests[:IN_FLIGHT])
        gc.collect()
        gc.freeze()  # as vLLM does when it has started
        engine.spent.clear()
        cuda.calls.clear()
        counters.taken()
        engine.steps = engine.waited = engine.held_blocks = engine.wall = 0
        asked = link.counters["requests"]
        others = time.process_time() - time.thread_time()
        engine.run(requests[IN_FLIGHT:])
        others = time.process_time() - time.thread_time() - others
        count = given.requests
        total = sum(engine.spent.values()) / 1000
        figures = {
            "us_per_request": round(total / count, 1),
            "us_per_step": round(total / engine.steps, 1),
            "hooks_us_per_request": {k: round(v / 1000 / count, 1) for k, v in sorted(engine.spent.items())},
            "wall_us_per_request": round(engine.wall / 1000 / count, 1),
            "other_threads_us_per_request": round(others * 1e6 / count, 1),
            "messages_per_request": round((link.counters["requests"] - asked) / count, 2),
            "cuda_per_request": {k: round(v / count, 2) for k, v in sorted(cuda.calls.items())},
            "waiting_steps_per_request": round(engine.waited / count, 2),
            "held_blocks": round(engine.held_blocks / engine.steps, 1),
            "steps": engine.steps,
            "requests": count,
            "counters": counters.taken(),
        }
        json.dump(figures, sys.stdout)
        print()
        links.close()
        worker_side.close()


if __name__ == "__main__":
    main()
