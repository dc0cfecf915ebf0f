"""The scheduler side: an engine's scheduler hooks, turned into plans for the workers.

    the engine asks (as vLLM)  here                                     the cache is asked
    on_new_request        ──►  arrived    the engine is busy: ask now ──►  lookup
    get_num_new_matched…  ──►  match      how much can be loaded   ──►  load (leases the chunks)
    update_state_after…   ──►  allocated  where it goes
    build_connector_meta  ──►  plan_step  what the workers do now  ──►  reserve (which chunks it wants)
    update_connector_out… ──►  reported   what they have done      ──►  release, commit
    request_finished      ──►  finished   are its blocks needed?   ──►  reserve

Work is done once a request, not once a step: a decoding request costs nothing here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence, Set
from itertools import count

from reprise_engine.counters import Counters
from reprise_engine.jobs import Geometry
from reprise_engine.log import log
from reprise_engine.options import Options
from reprise_engine.plan import NOTHING, JobId, StepPlan, WorkerReport
from reprise_engine.same_process import Prefetcher
from reprise_engine.scheduler.block_refs import BlockRefs
from reprise_engine.scheduler.engine_step import EngineStep
from reprise_engine.scheduler.loads import Loads
from reprise_engine.scheduler.prefill_rate import PrefillRate
from reprise_engine.scheduler.rank_links import RankLinks
from reprise_engine.scheduler.saves import Saves
from reprise_engine.scheduler.tracked_request import EngineRequest, Root, TrackedRequest


class SchedulerSide:
    def __init__(
        self,
        links: RankLinks,
        geometry: Geometry,
        options: Options,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        prefetcher: Callable[[], Prefetcher | None] = lambda: None,
        block_refs: Callable[[], BlockRefs | None] = lambda: None,
    ) -> None:
        self._links = links
        self._geometry = geometry
        self._options = options
        self._counters = counters
        self._wall_clock = wall_clock
        self._prefetcher = prefetcher
        #: Jobs that some ranks have ended and others not: how many have, and whether one of them failed.
        self._half_done: dict[JobId, tuple[int, bool]] = {}
        #: How many ranks have mapped the pool of which epoch; and the epoch that all of them have.
        self._mapping, self._mapped_epoch = (0, 0), 0
        numbers = count(1)
        parts = (links, geometry, options, counters, lambda: next(numbers))
        self._prefill = PrefillRate(clock)
        self._loads = Loads(*parts, self._prefill, clock, prefetcher)
        self._saves = Saves(*parts, clock, block_refs)
        self._requests: dict[str, TrackedRequest] = {}
        #: Requests whose prompt is not computed yet, by id.
        self._prefilling: dict[str, TrackedRequest] = {}
        #: Those of them whose prompt ends in the step that is being planned.
        self._ending: list[EngineRequest] = []
        self._fence = False
        #: The engine's own prefix cache may hold KV of former weights or other texts: who begins with a hit there is
        #: not stored.
        self._own_cache_is_old = False
        #: The plan that is being made.
        self._unsent: StepPlan | None = None

    @property
    def open_jobs(self) -> int:
        """Jobs given to the workers that have not come back: 0 once the engine is idle."""
        return self._loads.open_jobs + self._saves.open_jobs

    @property
    def tracked_requests(self) -> int:
        return len(self._requests)

    @property
    def keeps_blocks(self) -> bool:
        """Blocks of ended requests are waiting for steps in which they are saved."""
        return self._saves.keeps_blocks

    def match(
        self,
        request: EngineRequest,
        computed: int,
        *,
        root: Root,
        may_read: bool,
        may_save: bool,
        awaited: bool = False,
        promised_until: float | None = None,
    ) -> tuple[int | None, bool]:
        """How many tokens after the first `computed` can be loaded, and whether that takes longer than a step. None:
        that is not known yet; to be asked in the next step. `awaited`: somebody is storing the text elsewhere just now.
        `promised_until`: another connector brings it, which is what it says if it has come by then (`time.time()`).
        """
        tracked = self._requests.get(request.request_id)
        if tracked is None:
            tracked = self._track(request, root, may_read=may_read, may_save=may_save, awaited=awaited)
        elif tracked.blocks:
            self.preempted([request.request_id])
        if computed > 0 and self._own_cache_is_old:
            tracked.may_save = False
        self._prefilling[request.request_id] = tracked
        tracked.promised_until = promised_until
        if promised_until is not None:
            return 0, False
        return self._loads.match(tracked, computed, alone=len(self._requests) == 1)

    def arrived(
        self, request: EngineRequest, *, root: Root, may_read: bool, may_save: bool, awaited: bool = False
    ) -> None:
        """A request has come. An engine that has others to serve asks early, and does not wait for the answer later."""
        if request.request_id in self._requests:
            return
        tracked = self._track(request, root, may_read=may_read, may_save=may_save, awaited=awaited)
        if len(self._requests) > 1:
            self._loads.questions.ask_early(tracked)

    def allocated(self, request_id: str, blocks: Callable[[], Sequence[int]], external_tokens: int) -> None:
        """The engine has given a request blocks; `external_tokens` of them are to be loaded."""
        tracked = self._requests.get(request_id)
        claim = None if tracked is None else tracked.claim
        if tracked is None or claim is None:
            return
        try:
            self._loads.allocated(tracked, blocks() if external_tokens > 0 else (), external_tokens)
        except Exception:
            if external_tokens > 0:
                # The engine counts on these blocks, and so may others that share them.
                self._loads.lost(tracked, claim, blocks())
                self._saves.taint(self._requests.values())
            raise

    def preempted(self, request_ids: Iterable[str]) -> None:
        """These requests lose their blocks in the step that is being planned."""
        for request_id in request_ids:
            tracked = self._requests.get(request_id)
            if tracked is None:
                continue
            self._prefill.gone(tracked.request)
            if self._saves.preempted(tracked):
                self._fence = True

    def plan_step(self, step: EngineStep) -> StepPlan:
        """What the workers do for a step that the engine is about to take."""
        self._links.poll()
        self._prefill.look()
        self._loads.questions.stepped(idle=not step.num_scheduled_tokens)
        preempted = getattr(step, "preempted_req_ids", None) or ()
        prefills = not self._prefilling.keys().isdisjoint(step.num_scheduled_tokens.keys())
        waits = self._loads.has_work or self._saves.has_work or self._fence
        pool = None if self._mapped_epoch == self._links.epoch else self._links.pool
        if not (preempted or prefills or waits or pool):
            return NOTHING
        plan = self._unsent = StepPlan(pool=pool)
        self.preempted(preempted)
        self._loads.plan(plan)
        self._saves.plan(plan)
        plan.fence_saves, self._fence = self._fence, False
        if prefills:
            self._ending.clear()
            self._follow_prefills(step)
            tokens = sum(step.num_scheduled_tokens.values())
            self._prefill.planned(tokens, self._ending, loads=any(job.in_step for job in plan.loads))
        nearby = self._prefetcher() if plan.loads else None
        if nearby is not None:
            nearby.begin_loads(plan)  # last: what else the plan holds can no longer change
        self._unsent = None
        return plan

    def plan_after_fault(self) -> StepPlan:
        """What the workers are told when `plan_step` has failed: every request that waits for us goes on without us.

        Loads that the engine counts on in this step are done all the same.
        """
        plan, self._unsent = self._unsent or StepPlan(pool=self._links.pool), None
        for tracked in self._prefilling.values():
            tracked.may_save = False  # which blocks they got in this step was not noted
        plan.loads += self._loads.take_jobs()
        plan.finish_loads.update(self._loads.give_up_all())
        plan.finish_saves.update(self._saves.give_up_all())
        plan.fence_saves = True
        return plan

    def reported(self, report: WorkerReport) -> None:
        """A rank's (or all ranks') report of a step."""
        self._prefill.look()
        if self._links.epoch in report.ready:
            self._mapped(self._links.epoch, report.ready[self._links.epoch])
        # In the order in which they were given: a load before the saves of what was computed on it.
        for job_id, ranks in sorted(report.done.items()):
            before, failed = self._half_done.pop(job_id, (0, False))
            failed = failed or job_id in report.failed
            if before + ranks < self._geometry.ranks:
                self._half_done[job_id] = (before + ranks, failed)
                continue
            if self._loads.ended(job_id, failed=failed) == "failed":
                self._saves.taint(self._requests.values())
            self._saves.ended(job_id, failed=failed)

    def received(self, request_ids: Iterable[str]) -> None:
        """Loads between steps of these requests are over, whichever connector's they were."""
        for request_id in request_ids:
            tracked = self._requests.get(request_id)
            until = None if tracked is None else tracked.promised_until
            if tracked is not None and until is not None and self._wall_clock() < until:
                tracked.promised_until = None

    def finished(self, request: EngineRequest, blocks: Sequence[int]) -> bool:
        """A request is over. True: its blocks are needed until the workers report it sent."""
        tracked = self._requests.pop(request.request_id, None)
        if tracked is None:
            return False
        self._prefill.look()
        self._prefill.gone(request)
        prompt_is_computed = self._prefilling.pop(request.request_id, None) is None
        try:
            self._loads.abandon(tracked)
            if not prompt_is_computed or self._options.save != "all":
                return self._saves.finished(tracked, (), 0)
            # The last token was sampled and never read; what runs ahead of it is no text.
            tokens = min(request.num_computed_tokens, request.num_tokens - 1)
            return self._saves.finished(tracked, blocks, tokens)
        except Exception:
            # The engine takes the blocks back now: what is still being copied out of them is not stored.
            self._saves.taint([tracked])
            raise

    def taint_blocks(self, blocks: Set[int]) -> None:
        """Another connector of this engine could not load these blocks."""
        self._saves.taint_blocks(blocks, self._requests.values())

    def set_aside(self, request_id: str) -> None:
        """This request goes on without the cache."""
        tracked = self._requests.get(request_id)
        if tracked is not None:
            tracked.may_read = tracked.may_save = False
            self._loads.void(tracked)

    def reset(self, *, pool_is_empty: bool) -> bool:
        """What was computed until now is of former weights: it is not stored, and what was stored is not loaded.

        `pool_is_empty`: the engine's own prefix cache holds nothing. False: loads were under way. What they bring is
        thrown away as far as that can be; requests that read it before are not stored.
        """
        self._own_cache_is_old = not pool_is_empty
        self._fence = self._fence or self._saves.open_jobs > 0
        self._saves.reset(self._requests.values())
        nothing_was_under_way = self._loads.reset(self._requests.values())
        for tracked in list(self._requests.values()):
            if tracked.claim is None and tracked.request.num_computed_tokens == 0:
                # It has nothing yet, or has lost it: it comes again, as a text of the new weights.
                del self._requests[tracked.request_id]
                self._prefilling.pop(tracked.request_id, None)
                self._prefill.gone(tracked.request)
            else:
                tracked.may_read = tracked.may_save = False
        return nothing_was_under_way

    def close(self) -> None:
        self._links.close()

    def _mapped(self, epoch: int, ranks: int) -> None:
        """So many more ranks have the pool of that epoch."""
        before = self._mapping[1] if self._mapping[0] == epoch else 0
        self._mapping = (epoch, before + ranks)
        if before + ranks >= self._geometry.ranks:
            self._mapped_epoch = epoch

    def _track(
        self, request: EngineRequest, root: Root, *, may_read: bool, may_save: bool, awaited: bool
    ) -> TrackedRequest:
        may_save = may_save and self._options.save != "none"
        tracked = TrackedRequest(request, root, may_read, may_save, awaited="yes" if awaited else "no")
        if not tracked.has_text():
            tracked.may_read = tracked.may_save = False
            self._counters.add("requests_unreadable")
        self._requests[request.request_id] = tracked
        return tracked

    def _follow_prefills(self, step: EngineStep) -> None:
        scheduled = step.num_scheduled_tokens
        late: set[int] = set()
        for new in step.scheduled_new_reqs:
            tracked = self._prefilling.get(new.req_id)
            if tracked is not None:
                tracked.blocks = list(new.block_ids[0])
                if new.num_computed_tokens > 0 and self._came_late(tracked):
                    late.update(tracked.blocks)
                self._computed(tracked, new.num_computed_tokens + scheduled[new.req_id])
        cached = step.scheduled_cached_reqs
        for i, request_id in enumerate(cached.req_ids):
            tracked = self._prefilling.get(request_id)
            if tracked is None:
                continue
            new_blocks = cached.new_block_ids[i]
            if request_id in cached.resumed_req_ids:
                tracked.blocks = []
            if new_blocks is not None:
                tracked.blocks.extend(new_blocks[0])
            self._computed(tracked, cached.num_computed_tokens[i] + scheduled[request_id])
        if late:
            self._saves.taint_blocks(late, self._requests.values())

    def _came_late(self, tracked: TrackedRequest) -> bool:
        """Whether what another engine has handed over came when that may have used its blocks for other texts already.
        It is not stored then, and neither is what begins with it in the engine's own prefix cache.
        """
        if tracked.promised_until is None:
            return False
        tracked.promised_until = None
        self._counters.add("late_handovers")
        if not self._own_cache_is_old:
            log.warning(
                "Reprise: a prompt was handed over later than the engine that read it has surely kept it. It is not "
                "stored, nor is, until this engine's own prefix cache is reset, what begins with a hit there"
            )
        self._own_cache_is_old = True
        return True

    def _computed(self, tracked: TrackedRequest, tokens: int) -> None:
        if tokens >= tracked.request.num_prompt_tokens:
            self._prefilling.pop(tracked.request_id, None)
            self._ending.append(tracked.request)
        self._saves.computed(tracked, tokens)
