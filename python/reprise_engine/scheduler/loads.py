"""Hits: from the engine's question how much of a request is stored, to blocks that hold it.

    match ──► a claim (leases held) ──► allocated ──► a load in this step     all of it is in memory
       │                                        └──► a load between steps     some of it comes from below, or much is
       │                                                                      under way and others would wait for it
       ├──► None: to be asked again in the next step                          others are asked (questions.py)
       └──► nothing: a miss, late, refused                                    what fails is computed

What lies below memory is claimed as far as loading it beats computing it. The cache knows (`worth_tokens`), from what
its tiers do and what this engine says of itself (`PrefillRate`).

A request may be matched several times before it is scheduled, and is matched anew after a preemption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reprise.rows import LoadedPart
from reprise_engine.counters import Counters
from reprise_engine.jobs import Geometry, chunks_before, load_job, usable_end
from reprise_engine.options import Options
from reprise_engine.plan import JobId, LoadJob, StepPlan
from reprise_engine.same_process import Prefetcher
from reprise_engine.scheduler.patience import Patience
from reprise_engine.scheduler.prefill_rate import PrefillRate
from reprise_engine.scheduler.questions import Questions
from reprise_engine.scheduler.rank_links import RankLeases, RankLinks
from reprise_engine.scheduler.tracked_request import AsyncLoad, Claim, TrackedRequest

#: A step that serves several requests waits for no more KV than this, which takes a link of PCI Express 5 twenty
#: milliseconds. Whatever is more, or comes behind that much, is loaded between steps, while others get their tokens.
MOST_WAITED_BYTES = 1 << 30
#: After so many loads in a row that the workers could not do, none is tried for a while.
_failures_tolerated = 4
_pause_seconds = 10.0


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A job that the workers have and have not ended."""

    request_id: str
    leases: RankLeases
    tokens: int


class Loads:
    def __init__(
        self,
        links: RankLinks,
        geometry: Geometry,
        options: Options,
        counters: Counters,
        new_job_id: Callable[[], JobId],
        prefill: PrefillRate,
        clock: Callable[[], float] = time.monotonic,
        prefetcher: Callable[[], Prefetcher | None] = lambda: None,
    ) -> None:
        self._links = links
        self._geometry = geometry
        self._options = options
        self._counters = counters
        self._new_job_id = new_job_id
        self._prefill = prefill
        self._patience = Patience(options, prefill, geometry.chunk_tokens)
        self.questions = Questions(links, geometry, options, counters, prefill, self._patience, clock)
        self._clock = clock
        self._prefetcher = prefetcher
        self._jobs: list[LoadJob] = []
        #: Jobs that have been handed out and have not ended.
        self._under_way: dict[JobId, _UnderWay] = {}
        #: All blocks of requests whose loads between steps are not over.
        self._between_steps: dict[str, np.typing.NDArray[np.int32]] = {}
        self._most_waited_tokens = MOST_WAITED_BYTES // geometry.block_bytes * geometry.block_tokens
        self._async_loads: dict[str, TrackedRequest] = {}
        self._failures = 0
        self._paused_until = 0.0
        #: Blocks that were promised in the next step and will not be loaded.
        self._lost: list[int] = []
        #: Requests whose loads between steps have all been handed out, with the blocks that will not be loaded.
        self._complete: dict[str, list[int]] = {}

    @property
    def open_jobs(self) -> int:
        """Jobs whose leases are held."""
        return len(self._under_way)

    @property
    def has_work(self) -> bool:
        """There may be something for the next plan."""
        return bool(self._async_loads or self._jobs or self._lost or self._complete)

    def match(self, tracked: TrackedRequest, computed: int, *, alone: bool) -> tuple[int | None, bool]:
        """Tokens after the first `computed` that can be loaded, and whether that happens between steps. None: others
        are being asked; to be matched again in the next step.

        `alone`: the engine has no other request, which a load in this step would hold up.
        """
        limit = self._geometry.whole_blocks(tracked.request.num_tokens - 1)
        claim = tracked.claim
        if claim is not None and claim.begin == computed and self._stands(claim):
            return claim.end - computed, claim.between_steps  # it could not be scheduled last time
        self.drop_claim(tracked)
        if limit <= computed or tracked.gave_up or not tracked.may_read or self._clock() < self._paused_until:
            self.questions.drop(tracked)
            return 0, False
        if not self._links.up:
            self.questions.drop(tracked)
            self._counters.add("misses_link_down")
            return 0, False
        # Asked early: a second question would queue up behind those of the requests that came with this one.
        word = self.questions.word(tracked, computed, limit - computed)
        if word == "wait":
            return None, False
        if word == "late":
            self._counters.add("misses_late")
        elif word == "nothing":
            self._counters.add("misses_known_early")
        else:
            tracked.claim = self._claim(tracked, computed, limit, alone=alone)
        if tracked.claim is None:
            return None if tracked.question is not None else 0, False
        return tracked.claim.end - computed, tracked.claim.between_steps

    def allocated(self, tracked: TrackedRequest, blocks: Sequence[int], external_tokens: int) -> None:
        """The engine has given the claimed tokens their blocks. `blocks`: those of the whole request."""
        claim, tracked.claim = tracked.claim, None
        if claim is None:
            return
        if claim.void:
            if external_tokens > 0:
                self.lost(tracked, claim, blocks)
            return
        if external_tokens != claim.end - claim.begin:
            # Not scheduled with the claim after all.
            self._give_back(claim)
            if external_tokens > 0:
                raise RuntimeError(f"{external_tokens} tokens were allocated for a claim of {claim.end - claim.begin}")
            return
        tracked.asked_to_save = max(tracked.asked_to_save, claim.end)  # it is stored
        of_claim = slice(claim.begin // self._geometry.block_tokens, claim.end // self._geometry.block_tokens)
        block_ids = np.array(blocks[of_claim], np.int32)
        if claim.between_steps:
            self._between_steps[tracked.request_id] = block_ids
        job = claim.job
        if job is None:
            deadline = self._clock() + self._patience.for_a_load(claim.end - claim.begin)
            tracked.async_load = AsyncLoad(claim.load, claim.begin, claim.end, block_ids, 0, claim.begin, deadline)
            self._async_loads[tracked.request_id] = tracked
            return
        claim.load.release_after(claim.rows)
        job.block_ids = block_ids
        job.valid_until = self._links.leases_until
        self._hand_out(job, claim.load.chunks(0, claim.rows), claim.end - claim.begin)
        if not job.in_step:
            self._complete[tracked.request_id] = []

    def lost(self, tracked: TrackedRequest, claim: Claim, blocks: Sequence[int]) -> None:
        """A claim could not be taken up though its blocks were allocated: they are to be computed."""
        size = self._geometry.block_tokens
        promised = list(blocks[claim.begin // size : claim.end // size])
        if claim.between_steps:
            self._async_loads.pop(tracked.request_id, None)
            tracked.async_load = None
            self._complete[tracked.request_id] = promised
            self._forget_if_over(tracked.request_id)
        else:
            self._lost += promised
        tracked.gave_up = True
        self._counters.add("lost_loads")

    def plan(self, plan: StepPlan) -> None:
        """Hands out the loads of this step, and what has arrived from below since the last one."""
        for tracked in list(self._async_loads.values()):
            self._advance(tracked, plan)
        plan.loads += self.take_jobs()
        plan.unloaded += self._lost
        plan.finish_loads.update(self._complete)
        self._lost, self._complete = [], {}

    def take_jobs(self) -> list[LoadJob]:
        """Jobs that no plan has held yet."""
        taken, self._jobs = self._jobs, []
        return taken

    def drop_claim(self, tracked: TrackedRequest) -> None:
        """Gives the leases of a claim back that was not taken up."""
        self.void(tracked)
        tracked.claim = None

    def void(self, tracked: TrackedRequest) -> None:
        """Gives the leases of a claim back on which the engine may count already."""
        if tracked.claim is not None and not tracked.claim.void:
            tracked.claim.void = True
            self._give_back(tracked.claim)

    def reset(self, requests: Iterable[TrackedRequest]) -> bool:
        """Nothing that is stored now is loaded any more. False: something was being loaded; the blocks of requests
        that still wait for it are to be computed.
        """
        was_loading = bool(self._under_way or self._async_loads)
        for tracked in requests:
            self.void(tracked)
            self.questions.drop(tracked)
        for request_id, blocks in self._between_steps.items():
            if request_id not in self._async_loads:
                self._lost += blocks.tolist()
        self._complete.update(self.give_up_all())
        return not was_loading

    def abandon(self, tracked: TrackedRequest) -> None:
        """The request is over. A load between steps ends with the next plan; the engine keeps the blocks until then."""
        self.drop_claim(tracked)
        self.questions.drop(tracked)
        if tracked.async_load is not None:
            tracked.async_load.deadline = 0.0

    def ended(self, job_id: JobId, *, failed: bool) -> Literal["loaded", "failed", "not a load"]:
        """The workers are through with a job."""
        job = self._under_way.pop(job_id, None)
        if job is None:
            return "not a load"
        self._links.release(job.leases)
        self._forget_if_over(job.request_id)
        if not failed:
            self._failures = 0
            return "loaded"
        self._counters.add("failed_loads")
        self._failures += 1
        if self._failures >= _failures_tolerated:
            self._failures = 0
            self._paused_until = self._clock() + _pause_seconds
        return "failed"

    def give_up_all(self) -> dict[str, list[int]]:
        """Ends every load between steps at once: what the workers are told when planning itself has failed."""
        unloaded: dict[str, list[int]] = {}
        for request_id, tracked in self._async_loads.items():
            loading, tracked.async_load = tracked.async_load, None
            if loading is not None:
                loading.load.release_after(loading.rows)
                unloaded[request_id] = loading.block_ids.tolist()
        self._async_loads.clear()
        for request_id in unloaded:
            self._forget_if_over(request_id)
        return unloaded

    def _claim(self, tracked: TrackedRequest, computed: int, limit: int, *, alone: bool) -> Claim | None:
        tokens = tracked.tokens(limit)
        root = tracked.root
        self._counters.add("lookups")
        patience = self._patience.for_an_answer(limit - computed)
        load = self._links.load(
            tokens,
            root.salt,
            root.adapter,
            from_token=computed,
            only_ready=True,
            deadline_ms=max(1, round(patience * 1000)),
            compute_ms_per_token=self._prefill.ms_per_token,
        )
        if load is None:
            self._counters.add("misses_refused")
            return None
        if not load.wait(patience) or load.failed:
            self._counters.add("misses_late")
            load.cancel()
            return None
        rows = load.rows
        chunks = load.chunks(0, rows)
        end = self._common_end(chunks, computed, limit)
        stored = self._geometry.whole_blocks(min(load.hit_tokens, limit))
        worth = min(self._geometry.whole_blocks(load.worth_tokens), stored)
        ready = max(end, computed)
        if load.more and self.questions.ask_elsewhere(tracked, limit - max(stored, computed)):
            load.cancel()
            return None
        if worth < stored:
            self._counters.add("skipped_tokens", stored - max(worth, ready))
        if worth - ready >= self._options.min_disk_tokens:
            worth = self._patience.without_lesson(ready, worth)
            loading = self._links.load(
                tokens[:worth],
                root.salt,
                root.adapter,
                from_token=computed,
                only_ready=False,
                deadline_ms=self._options.load_deadline_ms,
            )
            load.cancel()  # after the second question, so that what is in memory stays there
            return None if loading is None else Claim(loading, 0, computed, worth, None)
        if end <= computed:
            load.cancel()
            return None
        used = chunks_before(chunks[0], end)
        chunks = [ours[:used] for ours in chunks]
        in_step = alone or self._can_be_waited_for(end - computed)
        blocks = np.zeros((end - computed) // self._geometry.block_tokens, np.int32)  # which, is not known yet
        job = self._job(tracked, load.epoch, chunks, computed, end, blocks, in_step=in_step)
        prefetcher = self._prefetcher()
        if prefetcher is not None:
            prefetcher.prefetch(job)
        return Claim(load, used, computed, end, job)

    def _can_be_waited_for(self, tokens: int) -> bool:
        """Whether a step may wait for these tokens, and for all that comes before them on the link."""
        return sum(job.tokens for job in self._under_way.values()) + tokens <= self._most_waited_tokens

    def _common_end(self, chunks: list[list[LoadedPart]], begin: int, limit: int) -> int:
        return min(usable_end(self._geometry, ours, begin, limit) for ours in chunks)

    def _advance(self, tracked: TrackedRequest, plan: StepPlan) -> None:
        loading = tracked.async_load
        if loading is None:
            return
        all_came = loading.load.done  # asked before the chunks are counted
        rows = loading.load.rows
        stands = loading.load.epoch == self._links.epoch and self._clock() < loading.deadline
        if stands and rows > loading.rows:
            chunks = loading.load.chunks(loading.rows, rows)
            end = self._common_end(chunks, loading.covered, loading.end)
            used = chunks_before(chunks[0], end) if end > loading.covered else 0
            if used > 0:
                done = (loading.covered - loading.begin) // self._geometry.block_tokens
                ahead = (end - loading.begin) // self._geometry.block_tokens
                chunks = [ours[:used] for ours in chunks]
                blocks = loading.block_ids[done:ahead]
                job = self._job(tracked, loading.load.epoch, chunks, loading.covered, end, blocks, in_step=False)
                self._hand_out(job, chunks, end - loading.covered)
                loading.rows += used
                loading.covered = end
        if loading.covered < loading.end and stands and not all_came:
            return
        loading.load.release_after(loading.rows)
        done = (loading.covered - loading.begin) // self._geometry.block_tokens
        plan.finish_loads[tracked.request_id] = loading.block_ids[done:].tolist()
        if loading.covered < loading.end:
            tracked.gave_up = True
            self._counters.add("unfinished_loads")
        tracked.async_load = None
        del self._async_loads[tracked.request_id]
        self._forget_if_over(tracked.request_id)

    def _job(
        self,
        tracked: TrackedRequest,
        epoch: int,
        chunks: list[list[LoadedPart]],
        begin: int,
        end: int,
        block_ids: np.typing.NDArray[np.int32],
        *,
        in_step: bool,
    ) -> LoadJob:
        return load_job(
            self._geometry,
            chunks,
            job_id=self._new_job_id(),
            request_id=tracked.request_id,
            epoch=epoch,
            begin=begin,
            end=end,
            block_ids=block_ids,
            valid_until=self._links.leases_until,
            in_step=in_step,
        )

    def _hand_out(self, job: LoadJob, chunks: list[list[LoadedPart]], tokens: int) -> None:
        leases = [[chunk.lease for chunk in ours] for ours in chunks]
        self._under_way[job.job_id] = _UnderWay(job.request_id, leases, tokens)
        self._jobs.append(job)
        self._counters.add("loaded_tokens" if job.in_step else "async_loaded_tokens", tokens)

    def _stands(self, claim: Claim) -> bool:
        return not claim.void and claim.load.epoch == self._links.epoch and self._links.up

    def _forget_if_over(self, request_id: str) -> None:
        """Its loads between steps may be over: then its blocks are the engine's affair alone."""
        under_way = {job.request_id for job in self._under_way.values()}
        if request_id not in self._async_loads and request_id not in under_way:
            self._between_steps.pop(request_id, None)

    def _give_back(self, claim: Claim) -> None:
        """Its leases, and what was prefetched under them."""
        prefetcher = self._prefetcher()
        if prefetcher is not None and claim.job is not None:
            prefetcher.forget(claim.job.job_id)
        claim.load.cancel()
