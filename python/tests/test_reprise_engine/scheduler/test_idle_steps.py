"""Steps in which there is nothing to do: they hold one empty plan, and leave the links alone for a moment."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from conftest import CacheProcess, eventually
from reprise_engine.counters import Counters
from reprise_engine.plan import NOTHING, StepPlan, WorkerReport
from reprise_engine.scheduler.rank_links import REST_SECONDS, RankLinks
from reprise_engine.scheduler.tracked_request import Root
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine
from test_reprise_engine.scheduler.simulated_guest import GEOMETRY, guest, prompt


def step_of(**tokens: int) -> Any:
    """A step that computes so many tokens of these requests, all of them known to the workers."""
    cached = SimpleNamespace(
        req_ids=list(tokens),
        resumed_req_ids=set(),
        new_block_ids=[None] * len(tokens),
        num_computed_tokens=[0] * len(tokens),
    )
    return SimpleNamespace(scheduled_new_reqs=[], scheduled_cached_reqs=cached, num_scheduled_tokens=tokens)


def counted_polls(links: RankLinks) -> list[int]:
    """Grows with every poll of the first link."""
    link, polls = links.links[0], list[int]()
    poll = link.poll

    def counted() -> None:
        polls.append(1)
        poll()

    vars(link)["poll"] = counted
    return polls


def test_the_pool_is_told_until_every_rank_has_mapped_it(cache: CacheProcess) -> None:
    side, links, _ = guest(cache, replace(GEOMETRY, ranks=2))  # one link does for both here
    first = side.plan_step(step_of()).pool
    assert first is not None and first.epoch == links.epoch
    side.reported(WorkerReport(ready={first.epoch: 1}))
    assert side.plan_step(step_of()).pool == first
    side.reported(WorkerReport(ready={first.epoch - 1: 1}))
    assert side.plan_step(step_of()).pool == first, "another epoch's does not count"
    side.reported(WorkerReport(ready={first.epoch: 1}))
    assert side.plan_step(step_of()) is NOTHING
    links.close()


def test_a_new_connection_has_its_pool_told_again(cache: CacheProcess) -> None:
    side, links, _ = guest(cache)
    side.reported(WorkerReport(ready={links.epoch: 1}))
    assert side.plan_step(step_of()) is NOTHING
    connection = links.links[0]._connection
    assert connection is not None
    connection._channel._socket.shutdown(2)
    eventually(lambda: side.plan_step(step_of()).pool is not None)
    links.close()


def test_requests_that_only_decode_get_the_empty_plan_also_while_another_waits_for_blocks(cache: CacheProcess) -> None:
    side, links, _ = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    engine.add(Request("first", prompt(1, 100)))
    engine.run()
    waiting = Request("waiting", prompt(2, 100))
    side.match(waiting, 0, root=Root("", ""), may_read=True, may_save=True)
    assert side.plan_step(step_of(decoding=1)) is NOTHING
    assert side._prefill._began is None, "no prefill is timed"
    assert StepPlan() == NOTHING, "nobody has changed it"
    side.finished(waiting, [])
    links.close()


def test_links_of_which_nothing_is_awaited_rest_between_steps(cache: CacheProcess) -> None:
    side, links, _ = guest(cache)
    links.poll()
    polls = counted_polls(links)
    good = links.leases_until
    for _ in range(3):
        side.plan_step(step_of())
    assert len(polls) <= 1
    eventually(lambda: bool(side.plan_step(step_of())) and links.leases_until >= good + REST_SECONDS)
    links.close()


def test_an_awaited_answer_is_looked_for_in_every_step(cache: CacheProcess) -> None:
    side, links, _ = guest(cache)
    links.poll()
    polls = counted_polls(links)
    lookup = links.lookup(memoryview(bytes(64)), "", "", deadline_ms=5000)
    assert lookup is not None
    side.plan_step(step_of())
    assert len(polls) == 1
    eventually(lambda: bool(side.plan_step(step_of())) and lookup.done)
    links.close()


def test_what_is_counted_is_told_once() -> None:
    counters = Counters()
    counters.add("lookups")
    counters.add("saved_bytes", 7)
    assert counters.taken() == {"lookups": 1, "saved_bytes": 7}
    assert counters.taken() == {}
    counters.add("lookups")
    assert (counters["lookups"], counters["saved_bytes"]) == (2, 7)
    assert counters.all() == {"lookups": 2, "saved_bytes": 7}
    assert counters.taken() == {"lookups": 1}
