"""An engine as the connector sees it, without a model: it schedules, preempts, aborts, and checks every block it uses.

The KV of a block is a digest of the whole text up to its end, so a block with the wrong bytes is seen at once; the
worker is slow (slow_worker.py).
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from reprise_engine.jobs import Geometry
from reprise_engine.plan import WorkerReport
from reprise_engine.scheduler.scheduler_side import SchedulerSide
from reprise_engine.scheduler.tracked_request import Root
from test_reprise_engine.scheduler.slow_worker import SlowWorker


def block_content(salt: str, tokens: list[int], block_bytes: int) -> bytes:
    """The KV of the last block of `tokens`."""
    seed = hashlib.sha256(salt.encode() + np.array(tokens, np.uint32).tobytes()).digest()
    return (seed * (block_bytes // len(seed) + 1))[:block_bytes]


@dataclass(eq=False)
class Request:
    """The part of vLLM's Request that the connector reads."""

    request_id: str
    prompt_token_ids: list[int]
    output: list[int] = field(default_factory=list)
    salt: str = ""
    num_computed_tokens: int = 0
    blocks: list[int] = field(default_factory=list)
    state: str = "waiting"
    max_tokens: int = 4
    loaded_tokens: int = 0
    block_tokens: int = 4
    awaited: bool = False

    def block_ids(self) -> list[int]:
        return list(self.blocks)

    @property
    def all_token_ids(self) -> list[int]:
        return self.prompt_token_ids + self.output

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_token_ids) + len(self.output)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_token_ids)

    @property
    def block_hashes(self) -> list[bytes]:
        tokens, size = self.all_token_ids, self.block_tokens
        return [block_content(self.salt, tokens[: i + size], 32) for i in range(0, len(tokens) // size * size, size)]


class SimulatedEngine:
    def __init__(self, side: SchedulerSide, geometry: Geometry, *, blocks: int, seed: int) -> None:
        self.side = side
        self.geometry = geometry
        self.rng = random.Random(seed)
        self.memory = np.zeros((blocks, geometry.block_bytes), np.uint8)
        self.worker = SlowWorker(self.memory, geometry, self.rng)
        self.free = list(range(blocks))
        self.requests: dict[str, Request] = {}
        self.held: dict[str, Request] = {}
        self.step_tokens = 64
        self.loaded_tokens = 0
        self.preemptions = 0
        self.preempts = 0.0
        #: Blocks that the connector keeps, with how often.
        self.kept: Counter[int] = Counter()
        #: Those of them that no request has any more.
        self._left: set[int] = set()
        self._seen: set[str] = set()
        self._preempted_blocks: set[int] = set()
        #: Counts how often the weights were exchanged: KV of others is wrong.
        self.weights = 0
        #: As with asynchronous scheduling: the next step is planned before this one's report is read.
        self.reports_late = False
        self._report: WorkerReport | None = None

    def add(self, request: Request) -> None:
        self.requests[request.request_id] = request
        self.side.arrived(request, root=self._root(request), may_read=True, may_save=True, awaited=request.awaited)

    @property
    def idle(self) -> bool:
        over = not self.requests and not self.held and not self.side.keeps_blocks
        return over and self.worker.idle and self.side.open_jobs == 0

    def run(self, steps: int = 2000) -> None:
        """Until nothing is left to do."""
        for _ in range(steps):
            if self.idle:
                return
            self.step()
            if not self.requests:
                time.sleep(0.001)  # what is left waits for the cache, on a machine that may be busy
        requests = {
            name: f"{r.state} {r.num_computed_tokens} of {r.num_tokens} in {len(r.blocks)} blocks"
            for name, r in self.requests.items()
        }
        left = f"{requests}, {len(self.free)} blocks free, held {list(self.held)}, jobs {self.side.open_jobs}"
        raise AssertionError(
            f"still busy: {left}, keeps blocks {self.side.keeps_blocks}, idle worker {self.worker.idle}"
        )

    def step(self) -> None:
        preempted = self._preempt()
        new, cached, scheduled = self._schedule()
        output = SimpleNamespace(
            scheduled_new_reqs=[
                SimpleNamespace(
                    req_id=r.request_id, block_ids=(list(r.blocks),), num_computed_tokens=r.num_computed_tokens
                )
                for r in new
            ],
            scheduled_cached_reqs=SimpleNamespace(
                req_ids=[r.request_id for r, _, _ in cached],
                resumed_req_ids={r.request_id for r, _, resumed in cached if resumed},
                new_block_ids=[(blocks,) for _, blocks, _ in cached],
                num_computed_tokens=[r.num_computed_tokens for r, _, _ in cached],
            ),
            num_scheduled_tokens=scheduled,
            preempted_req_ids=preempted,
        )
        self.worker.begin_step(self.side.plan_step(output))
        # A preemption is announced in the plan of the same step: until here the old bytes were there.
        for block in self._preempted_blocks.intersection(self.free):
            self.memory[block] = 0xEE
        self._preempted_blocks.clear()
        invalid = self.worker.take_invalid()
        for request_id, count in scheduled.items():
            self._forward(self.requests[request_id], count, invalid)
        sent, received = self.worker.end_step()
        self._output(sent, received, invalid | self.worker.take_invalid())

    def exchange_weights(self) -> bool:
        """As vLLM does when it is to empty its caches after that: what runs begins anew, and so does what has been
        loaded for a request that waits (there vLLM refuses).
        """
        self.weights += 1
        for request in self.requests.values():
            if request.state != "remote":
                self._take_blocks(request)
        return self.side.reset(pool_is_empty=True)

    def _root(self, request: Request) -> Root:
        return Root(request.salt, f"generation {self.weights}" if self.weights else "")

    def _salt(self, request: Request) -> str:
        return f"{self.weights or ''}{request.salt}"

    def abort(self, request: Request) -> None:
        """As vLLM does: blocks of a request that waits for a load are kept until it is received."""
        waits = request.state == "remote"
        del self.requests[request.request_id]
        keep = self.side.finished(request, self._block_ids_computed(request))
        request.state = "finished"
        if keep or waits:
            self.held[request.request_id] = request
        else:
            self._free(request)

    def hold(self, block_ids: Sequence[int]) -> None:
        assert not set(block_ids).intersection(self.free), "blocks are kept while they are in use"
        self.kept.update(block_ids)

    def release(self, block_ids: Sequence[int]) -> None:
        for block in block_ids:
            self.kept[block] -= 1
            assert self.kept[block] >= 0
            if self.kept[block] == 0 and block in self._left:
                self._left.discard(block)
                self._free_block(block)

    def _free_block(self, block: int) -> None:
        # Whoever still reads it reads this.
        self.memory[block] = 0xEE
        self.free.append(block)

    def _preempt(self) -> set[str]:
        with_blocks = [r for r in self.requests.values() if r.blocks and r.state != "remote"]
        # Those that wait with what was loaded for them could hold all blocks between them, and none would ever run.
        candidates = [r for r in with_blocks if r.state == "running"] or with_blocks
        if not candidates or self.rng.random() >= self.preempts:
            return set()
        request = self.rng.choice(candidates)
        self._take_blocks(request)
        self.preemptions += 1
        return {request.request_id}

    def _take_blocks(self, request: Request) -> None:
        self._preempted_blocks.update(request.blocks)
        self.free.extend(request.blocks)
        request.blocks = []
        request.num_computed_tokens = 0
        request.state = "waiting"

    def _schedule(self) -> tuple[list[Request], list[tuple[Request, list[int], bool]], dict[str, int]]:
        new: list[Request] = []
        cached: list[tuple[Request, list[int], bool]] = []
        scheduled: dict[str, int] = {}
        budget = self.step_tokens
        for request in list(self.requests.values()):
            if request.state == "running" and budget > 0:
                count = min(budget, request.num_tokens - request.num_computed_tokens)
                blocks = self._allocate(request, request.num_computed_tokens + count)
                if blocks is None:
                    continue
                budget -= count
                cached.append((request, blocks, False))
                scheduled[request.request_id] = count
        for request in list(self.requests.values()):
            if request.state != "waiting" or budget == 0:
                continue
            slow = False
            if request.num_computed_tokens == 0:
                external, slow = self.side.match(
                    request,
                    0,
                    root=self._root(request),
                    may_read=True,
                    may_save=True,
                    awaited=request.awaited,
                )
                external = self._checked(request, external)
                count = 0 if slow else min(budget, request.num_tokens - max(0, external))
                if external < 0 or self._allocate(request, external + count) is None:
                    continue
                self.side.allocated(request.request_id, request.block_ids, external)
                request.num_computed_tokens = external
                request.loaded_tokens = external
                if slow:
                    request.state = "remote"
                    continue
                self.loaded_tokens += external
            else:
                count = min(budget, request.num_tokens - request.num_computed_tokens)
                if self._allocate(request, request.num_computed_tokens + count) is None:
                    continue
            request.state = "running"
            budget -= count
            scheduled[request.request_id] = count
            if request.request_id in self._seen:
                cached.append((request, list(request.blocks), True))
            else:
                self._seen.add(request.request_id)
                new.append(request)
        return new, cached, scheduled

    def _checked(self, request: Request, external: int | None) -> int:
        """What was promised; -1: it is asked again in the next step."""
        if external is None:
            return -1
        assert external % self.geometry.block_tokens == 0 and external < request.num_tokens
        return external

    def _forward(self, request: Request, count: int, invalid: set[int]) -> None:
        size = self.geometry.block_tokens
        tokens = request.all_token_ids
        bad = [i for i, block in enumerate(request.blocks) if block in invalid]
        if bad:
            request.num_computed_tokens = min(request.num_computed_tokens, bad[0] * size)
            request.state = "running"
            return
        for i in range(request.num_computed_tokens // size):
            expected = block_content(self._salt(request), tokens[: (i + 1) * size], self.geometry.block_bytes)
            assert self.memory[request.blocks[i]].tobytes() == expected, f"{request.request_id}: block {i} is wrong"
        end = request.num_computed_tokens + count
        for i in range(request.num_computed_tokens // size, end // size):
            content = block_content(self._salt(request), tokens[: (i + 1) * size], self.geometry.block_bytes)
            self.memory[request.blocks[i]] = np.frombuffer(content, np.uint8)
        request.num_computed_tokens = end
        if end == request.num_tokens:
            request.output.append(self.rng.randrange(50))
            if len(request.output) >= request.max_tokens:
                self.abort(request)

    def _output(self, sent: set[str], received: set[str], invalid: set[int]) -> None:
        size = self.geometry.block_tokens
        if self._report is not None:
            self.side.reported(self._report)
            self._report = None
        if self.reports_late:
            self._report = self.worker.take_report()
        else:
            self.side.reported(self.worker.take_report())
        for request in self.requests.values():
            bad = [i for i, block in enumerate(request.blocks) if block in invalid]
            if request.state == "remote" and bad:  # told with the end of its load, or before
                request.num_computed_tokens = min(request.num_computed_tokens, bad[0] * size)
        for request_id in received:
            if request_id not in self.requests:
                self._free(self.held.pop(request_id))
                continue
            request = self.requests[request_id]
            assert request.state == "remote", "received once, and only when it waits"
            self.loaded_tokens += request.num_computed_tokens
            request.state = "waiting"
            if request.num_computed_tokens == 0:
                self._free(request)
        for request_id in sent:
            self._free(self.held.pop(request_id))

    def _block_ids_computed(self, request: Request) -> list[int]:
        return request.blocks[: -(-request.num_computed_tokens // self.geometry.block_tokens)]

    def _allocate(self, request: Request, tokens: int) -> list[int] | None:
        missing = -(-tokens // self.geometry.block_tokens) - len(request.blocks)
        if missing > len(self.free):
            return None
        taken = [self.free.pop(self.rng.randrange(len(self.free))) for _ in range(max(0, missing))]
        request.blocks.extend(taken)
        return taken

    def _free(self, request: Request) -> None:
        for block in request.blocks:
            if self.kept[block] > 0:
                self._left.add(block)
            else:
                self._free_block(block)
        request.blocks = []
