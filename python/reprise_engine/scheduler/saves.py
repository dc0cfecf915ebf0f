"""Saves: computed blocks on their way to the cache, always a step behind the engine and never in its way.

    a prompt (or a large piece of it) is computed ──► reserve ──► a save job in a later step ──► commit
    a request ends ─────────────────────────────────► reserve        what is not saved yet is kept: block_refs.py

The cache answers a reservation with the chunks that nobody has stored: texts that many requests share are saved once.
At most `save_queue` is under way at a time. What a running request has beyond it waits, with its blocks; what ended
requests have waits up to as much again, and the rest is dropped: a KV cache full of blocks to be saved lets nobody in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass

from reprise.rows import ReservedPart
from reprise_engine.counters import Counters
from reprise_engine.jobs import Geometry, save_job
from reprise_engine.options import Options
from reprise_engine.plan import JobId, StepPlan
from reprise_engine.scheduler.block_refs import BlockRefs
from reprise_engine.scheduler.known_prefixes import KnownPrefixes
from reprise_engine.scheduler.rank_links import RankLeases, RankLinks
from reprise_engine.scheduler.tracked_request import Saving, TrackedRequest

#: A long prompt is saved in pieces of so many tokens while the rest of it is computed.
_piece_tokens = 8192
#: What a step saves goes in jobs of at most about this much, each with one gather after the other, one end, one commit.
_job_bytes = 512 * 1024 * 1024
_reserve_deadline_ms = 1000


@dataclass(slots=True)
class _Wanted:
    """Chunks of a text that the cache has no copy of, leased."""

    tracked: TrackedRequest
    block_hash: bytes | None
    #: [rank][chunk]
    chunks: list[list[ReservedPart]]
    #: Payload bytes of each chunk, and of all of them on all ranks.
    chunk_bytes: list[int]
    bytes: int

    @property
    def leases(self) -> RankLeases:
        return [[chunk.lease for chunk in ours] for ours in self.chunks]


@dataclass(slots=True)
class _OpenJob:
    texts: list[_Wanted]
    #: The blocks may have held something else than the KV of the text.
    tainted: bool = False

    @property
    def leases(self) -> RankLeases:
        ranks = range(len(self.texts[0].chunks))
        return [[chunk.lease for text in self.texts for chunk in text.chunks[rank]] for rank in ranks]

    @property
    def chunk_bytes(self) -> list[int]:
        return [size for text in self.texts for size in text.chunk_bytes]

    @property
    def bytes(self) -> int:
        return sum(text.bytes for text in self.texts)


class Saves:
    def __init__(
        self,
        links: RankLinks,
        geometry: Geometry,
        options: Options,
        counters: Counters,
        new_job_id: Callable[[], JobId],
        clock: Callable[[], float] = time.monotonic,
        block_refs: Callable[[], BlockRefs | None] = lambda: None,
    ) -> None:
        self._links = links
        self._geometry = geometry
        self._queue_bytes = options.save_queue_bytes
        self._counters = counters
        self._new_job_id = new_job_id
        self._block_refs = block_refs
        self._known = KnownPrefixes(clock=clock)
        self._known_epoch = 0
        self._asking: dict[str, TrackedRequest] = {}
        #: Ended requests of which the engine keeps all blocks, until a plan tells the workers for which jobs to wait.
        self._finishing: dict[str, TrackedRequest] = {}
        #: Ended requests of which we keep blocks.
        self._keeping: dict[int, TrackedRequest] = {}
        self._jobs: dict[JobId, _OpenJob] = {}
        self._open_bytes = 0

    @property
    def open_jobs(self) -> int:
        return len(self._jobs)

    @property
    def has_work(self) -> bool:
        """There may be something for the next plan."""
        return bool(self._asking or self._finishing or self._keeping)

    @property
    def keeps_blocks(self) -> bool:
        """Blocks of ended requests are waiting for steps in which they are saved."""
        return bool(self._keeping)

    def computed(self, tracked: TrackedRequest, tokens: int) -> None:
        """The first `tokens` tokens have their KV once the step that is being planned has run."""
        prompt_tokens = tracked.request.num_prompt_tokens
        if tokens < prompt_tokens and tokens - tracked.asked_to_save < _piece_tokens:
            return
        self._ask(tracked, self._geometry.whole_chunks(min(tokens, prompt_tokens)))

    def finished(self, tracked: TrackedRequest, blocks: Sequence[int], tokens: int) -> bool:
        """The request is over, with KV of its first `tokens` tokens in `blocks`. True: they are needed for a while."""
        tracked.finished = True
        under_way = bool(tracked.savings or tracked.save_jobs)
        first = 0 if under_way else self._geometry.whole_chunks(tracked.asked_to_save)
        if blocks:
            tracked.blocks = list(blocks)
            self._ask(tracked, self._geometry.whole_blocks(tokens))
        if not tracked.savings and not tracked.save_jobs:
            return False
        size = self._geometry.block_tokens
        kept = tracked.blocks[first // size : -(-tracked.asked_to_save // size)]
        if not kept:
            return False  # preempted before it was aborted: the step that took its blocks waits for the copies
        block_refs = self._block_refs()
        if block_refs is None:
            self._finishing[tracked.request_id] = tracked
            return True
        block_refs.hold(kept)
        tracked.kept, tracked.kept_from = kept, first
        self._keeping[id(tracked)] = tracked
        return False

    def preempted(self, tracked: TrackedRequest) -> bool:
        """The request loses its blocks in this step. True: some are being copied out."""
        self._forget_questions(tracked)
        tracked.blocks = []
        tracked.asked_to_save = 0
        return bool(tracked.save_jobs)

    def plan(self, plan: StepPlan) -> None:
        """Hands out what the cache has answered to since the last step."""
        wanted: list[_Wanted] = []
        kept_bytes = 0  # of ended requests, which wait for room
        for request_id, tracked in list(self._asking.items()):
            for saving in [saving for saving in tracked.savings if saving.reserve.done]:
                size = saving.reserve.tokens // self._geometry.block_tokens * self._geometry.block_bytes
                size *= self._geometry.ranks
                has_room = self._open_bytes == 0 or self._open_bytes + size <= self._queue_bytes
                if not has_room and tracked.finished:
                    kept_bytes += size
                if not has_room and (not tracked.finished or kept_bytes <= self._queue_bytes):
                    break  # what is under way goes first; its blocks stay
                tracked.savings.remove(saving)
                wanted += self._answered(tracked, saving, has_room=has_room)
            if not tracked.savings:
                del self._asking[request_id]
        while wanted:
            job = [wanted.pop(0)]
            size = job[0].bytes
            while wanted and size + wanted[0].bytes <= _job_bytes:
                size += wanted[0].bytes
                job.append(wanted.pop(0))
            self._hand_out(_OpenJob(job), plan)
        for request_id, tracked in list(self._finishing.items()):
            if not tracked.savings:
                plan.finish_saves[request_id] = sorted(tracked.save_jobs)
                del self._finishing[request_id]
        for tracked in list(self._keeping.values()):
            self._let_go_if_saved(tracked)

    def ended(self, job_id: JobId, *, failed: bool) -> None:
        """The workers are through with a job."""
        job = self._jobs.pop(job_id, None)
        if job is None:
            return
        self._open_bytes -= job.bytes
        for text in job.texts:
            text.tracked.save_jobs.discard(job_id)
            self._let_go_if_saved(text.tracked)
        if failed or job.tainted:
            self._counters.add("failed_saves" if failed else "tainted_saves")
            self._links.abandon(job.leases)
            return
        self._links.commit(job.leases, job.chunk_bytes)
        self._counters.add("saved_bytes", job.bytes)
        for text in job.texts:
            if text.block_hash is not None:
                self._known.add(text.block_hash)

    def taint(self, requests: Iterable[TrackedRequest]) -> None:
        """A load has failed after its blocks were in use: what was computed on them, by whomever, is never stored."""
        for job in self._jobs.values():
            job.tainted = True
        for tracked in self._with_ended(requests):
            tracked.taint(0)
            self._forget_questions(tracked)

    def taint_blocks(self, blocks: Set[int], requests: Iterable[TrackedRequest]) -> None:
        """Another connector could not load these blocks: whoever has them has computed on them, and is not stored."""
        affected = [tracked for tracked in self._with_ended(requests) if not blocks.isdisjoint(tracked.blocks)]
        for job in self._jobs.values():
            job.tainted = job.tainted or any(not blocks.isdisjoint(text.tracked.blocks) for text in job.texts)
        for tracked in affected:
            first = next(at for at, block in enumerate(tracked.blocks) if block in blocks)
            tracked.taint(first * self._geometry.block_tokens)
            self._forget_questions(tracked)

    def _with_ended(self, requests: Iterable[TrackedRequest]) -> list[TrackedRequest]:
        """These, and those that have ended and are still to be saved, each once."""
        ended = (*self._finishing.values(), *self._keeping.values(), *self._asking.values())
        return list({id(tracked): tracked for tracked in (*requests, *ended)}.values())

    def reset(self, requests: Iterable[TrackedRequest]) -> None:
        """All that was computed until now is of former weights: none of it is stored, and nobody waits for it."""
        self.taint(requests)
        for tracked in list(self._keeping.values()):
            self._let_go(tracked)
        self._known.clear()

    def give_up_all(self) -> dict[str, list[JobId]]:
        """Lets every finished request go: what the workers are told when planning itself has failed."""
        waiting = {request_id: sorted(tracked.save_jobs) for request_id, tracked in self._finishing.items()}
        for tracked in list(self._asking.values()):
            self._forget_questions(tracked)
        self._finishing.clear()
        if self._keeping:
            # Nobody may be there to say when their jobs end.
            for job in self._jobs.values():
                job.tainted = True
            for tracked in list(self._keeping.values()):
                self._let_go(tracked)
        return waiting

    def _ask(self, tracked: TrackedRequest, end: int) -> None:
        if tracked.approximate_from is not None:
            end = min(end, self._geometry.whole_blocks(tracked.approximate_from))
        if not tracked.may_save or end <= tracked.asked_to_save or not self._links.up:
            return
        if self._known_epoch != self._links.epoch:
            self._known_epoch = self._links.epoch
            self._known.clear()
        tracked.asked_to_save = end
        block_hash = self._hash_at(tracked, end)
        if block_hash is not None and self._known.has(block_hash):
            return
        root = tracked.root
        reserve = self._links.reserve(tracked.tokens(end), root.salt, root.adapter, deadline_ms=_reserve_deadline_ms)
        if reserve is None:
            self._counters.add("saves_refused")
            return
        tracked.savings.append(Saving(reserve, block_hash))
        self._asking[tracked.request_id] = tracked

    def _answered(self, tracked: TrackedRequest, saving: Saving, *, has_room: bool) -> list[_Wanted]:
        """What the cache wants of a text, if it can be had: one or nothing."""
        if saving.reserve.epoch != self._links.epoch:
            return []
        chunks = saving.reserve.take()
        if tracked.kept_from > 0:
            # What was saved before the end has gone from the cache since, and its blocks from us.
            gone = [[chunk.lease for chunk in ours if chunk.first_token < tracked.kept_from] for ours in chunks]
            if gone[0]:
                self._links.abandon(gone)
                chunks = [[chunk for chunk in ours if chunk.first_token >= tracked.kept_from] for ours in chunks]
        if not chunks[0]:
            if saving.block_hash is not None:
                self._known.add(saving.block_hash)
            return []
        size = self._geometry.block_tokens
        chunk_bytes = [chunk.token_count // size * self._geometry.block_bytes for chunk in chunks[0]]
        wanted = _Wanted(tracked, saving.block_hash, chunks, chunk_bytes, sum(chunk_bytes) * len(chunks))
        last = chunks[0][-1]
        has_blocks = len(tracked.blocks) * size >= last.first_token + last.token_count
        if not has_blocks or not has_room:
            self._counters.add("saves_dropped")
            self._links.abandon(wanted.leases)
            return []
        self._open_bytes += wanted.bytes
        return [wanted]

    def _hand_out(self, job: _OpenJob, plan: StepPlan) -> None:
        job_id = self._new_job_id()
        self._jobs[job_id] = job
        for text in job.texts:
            text.tracked.save_jobs.add(job_id)
        plan.saves.append(
            save_job(
                self._geometry,
                [(text.chunks, text.tracked.blocks) for text in job.texts],
                job_id=job_id,
                epoch=self._links.epoch,
                valid_until=self._links.leases_until,
            )
        )

    def _let_go_if_saved(self, tracked: TrackedRequest) -> None:
        if tracked.kept and not tracked.savings and not tracked.save_jobs:
            self._let_go(tracked)

    def _let_go(self, tracked: TrackedRequest) -> None:
        block_refs = self._block_refs()
        kept, tracked.kept = tracked.kept, []
        del self._keeping[id(tracked)]
        if block_refs is not None:
            block_refs.release(kept)

    def _forget_questions(self, tracked: TrackedRequest) -> None:
        for saving in tracked.savings:
            saving.reserve.cancel()
        tracked.savings.clear()
        self._asking.pop(tracked.request_id, None)

    def _hash_at(self, tracked: TrackedRequest, end: int) -> bytes | None:
        """The engine's hash of the text up to `end`."""
        hashes = tracked.request.block_hashes
        index = end // self._geometry.hash_tokens - 1
        return hashes[index] if 0 <= index < len(hashes) else None
