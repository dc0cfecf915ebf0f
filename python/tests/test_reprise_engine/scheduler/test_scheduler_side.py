"""The scheduler side against a real cache and an engine that checks every block it uses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from conftest import CacheProcess
from reprise_engine.plan import LoadJob, StepPlan, WorkerReport
from reprise_engine.scheduler import saves
from reprise_engine.scheduler.tracked_request import Root
from test_reprise_engine.scheduler.simulated_engine import Request, SimulatedEngine
from test_reprise_engine.scheduler.simulated_guest import (
    GEOMETRY,
    all_answered,
    block_refs,
    check_nothing_is_left,
    guest,
    prefetchers,
    prompt,
)


@pytest.fixture
def engine(cache: CacheProcess) -> Iterator[SimulatedEngine]:
    side, links, _ = guest(cache)
    yield SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    links.close()


def test_a_text_that_was_computed_once_is_loaded_the_next_time(engine: SimulatedEngine) -> None:
    engine.add(Request("first", prompt(1, 203)))
    engine.run()
    assert engine.loaded_tokens == 0
    engine.add(Request("second", prompt(1, 203)))
    engine.run()
    assert engine.loaded_tokens == 200


def test_answers_are_stored_with_their_prompts(engine: SimulatedEngine) -> None:
    first = Request("first", prompt(1, 100), max_tokens=30)
    engine.add(first)
    engine.run()
    engine.add(Request("second", [*first.all_token_ids, 1, 2, 3]))
    engine.run()
    assert engine.loaded_tokens == 128


def test_an_ended_request_keeps_only_the_blocks_that_are_not_saved_yet(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    block_refs[id(counters)] = engine
    request = Request("first", prompt(1, 100), max_tokens=20)
    engine.add(request)
    while not request.output:
        engine.step()
    all_answered(links)
    for _ in range(10):
        engine.step()
    assert counters["saved_bytes"] > 0 and side.open_jobs == 0
    while request.state == "running":
        engine.step()
    assert engine.kept.total() == (116 - 96) // 4, "six chunks of 16 tokens were saved before"
    engine.run()
    engine.add(Request("second", [*request.all_token_ids, 1, 2, 3]))
    engine.run()
    assert engine.loaded_tokens == 116
    check_nothing_is_left(engine, side, links, 256)


@pytest.mark.parametrize("lends_blocks", [False, True])
def test_a_request_that_is_preempted_and_aborted_while_it_is_saved_keeps_nothing(
    cache: CacheProcess, lends_blocks: bool
) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    if lends_blocks:
        block_refs[id(counters)] = engine
    engine.reports_late = True
    request = Request("first", prompt(1, 100), max_tokens=20)
    engine.add(request)
    while not request.output:
        engine.step()
    all_answered(links)
    engine.step()
    assert side.open_jobs == 1
    engine.preempts, engine.step_tokens = 1.0, 0
    engine.step()
    assert side.open_jobs == 1 and not request.blocks, "copied out, and not reported yet"
    engine.abort(request)
    assert not engine.held, "it may be loaded again by then, and be told of as received: once is enough"
    engine.run()
    assert counters["saved_bytes"] > 0
    check_nothing_is_left(engine, side, links, 256)


def test_a_long_prompt_is_stored_whole_though_little_may_be_under_way(
    cache: CacheProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saves, "_piece_tokens", 64)
    side, links, counters = guest(cache, save_queue=f"{2 * 64 // 4 * 4}KiB")  # two pieces
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    block_refs[id(counters)] = engine
    engine.reports_late = True
    engine.add(Request("first", prompt(1, 403), max_tokens=2))
    engine.run()
    assert counters["saves_dropped"] == 0
    engine.add(Request("second", prompt(1, 403)))
    engine.run()
    assert engine.loaded_tokens == 400
    check_nothing_is_left(engine, side, links, 256)


def test_what_ended_requests_keep_waiting_is_bounded(cache: CacheProcess) -> None:
    side, links, counters = guest(cache, save_queue="128KiB")
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    block_refs[id(counters)] = engine
    engine.step_tokens = 1000
    for i in range(8):
        engine.add(Request(f"r{i}", prompt(i, 97), max_tokens=1))
    engine.step()
    all_answered(links)
    engine.step()
    assert counters["saves_dropped"] == 6, "one text is under way and one waits"
    assert engine.kept.total() <= 2 * 96 // 4
    engine.run()
    assert counters["saved_bytes"] == 2 * 96 // 4 * 4096
    check_nothing_is_left(engine, side, links, 256)


def test_what_the_requests_of_a_step_save_is_one_job(cache: CacheProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    side, links, _ = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    engine.step_tokens = 1000
    saves: list[int] = []
    begin_step = engine.worker.begin_step

    def seen(plan: StepPlan) -> None:
        saves.extend(len(save.slot_offsets[0]) for save in plan.saves)
        begin_step(plan)

    monkeypatch.setattr(engine.worker, "begin_step", seen)
    for i in range(4):
        engine.add(Request(f"r{i}", prompt(i, 103), max_tokens=2))
    engine.step()
    all_answered(links)
    engine.step()
    assert saves == [4 * 6], "six whole chunks of each prompt"
    engine.run()
    for i in range(4):
        engine.add(Request(f"again {i}", prompt(i, 103)))
    engine.run()
    assert engine.loaded_tokens == 4 * 100
    links.close()


def test_salts_separate_texts(engine: SimulatedEngine) -> None:
    engine.add(Request("first", prompt(1, 100), salt="a"))
    engine.run()
    engine.add(Request("second", prompt(1, 100), salt="b"))
    engine.run()
    assert engine.loaded_tokens == 0


class Recorder:
    """A prefetcher that keeps what it was told."""

    def __init__(self) -> None:
        self.begun: list[LoadJob] = []
        self.forgotten: list[int] = []
        self.planned: list[StepPlan] = []

    def prefetch(self, job: LoadJob) -> None:
        self.begun.append(job)

    def forget(self, job_id: int) -> None:
        self.forgotten.append(job_id)

    def begin_loads(self, plan: StepPlan) -> None:
        self.planned.append(plan)


def test_a_claim_is_prefetched_once_and_forgotten_when_it_is_not_taken_up(
    cache: CacheProcess, engine: SimulatedEngine
) -> None:
    engine.add(Request("first", prompt(1, 203)))
    engine.run()
    side, links, counters = guest(cache)
    recorder = prefetchers[id(counters)] = Recorder()
    root = Root("", "")

    def match(name: str, computed: int = 0) -> Request:
        request = Request(name, prompt(1, 203))
        assert side.match(request, computed, root=root, may_read=True, may_save=True) == (200 - computed, False)
        return request

    aborted = match("aborted")
    match("aborted")
    (job,) = recorder.begun
    assert job.in_step and job.take_blocks.sum() == job.block_ids.size == 50
    side.finished(aborted, [])
    assert recorder.forgotten == [job.job_id]

    match("moved on")
    match("moved on", 32)
    assert [job.job_id for job in recorder.begun[1:2]] == recorder.forgotten[1:]
    assert recorder.begun[2].take_blocks.sum() == 42

    match("not scheduled with it")
    side.allocated("not scheduled with it", lambda: [], 0)
    assert recorder.forgotten[2:] == [recorder.begun[3].job_id]

    match("taken up")
    side.allocated("taken up", lambda: list(range(100, 151)), 200)
    nothing = SimpleNamespace(
        scheduled_new_reqs=[], scheduled_cached_reqs=SimpleNamespace(req_ids=[]), num_scheduled_tokens={}
    )
    plan = side.plan_step(nothing)
    assert recorder.planned == [plan], "plans without loads are not told"
    (planned,) = plan.loads
    assert planned.job_id == recorder.begun[4].job_id
    assert planned.block_ids.tolist() == list(range(100, 150))
    assert len(recorder.forgotten) == 3
    side.reported(WorkerReport(done={planned.job_id: 1}))
    assert side.open_jobs == 0
    links.close()


def test_a_busy_engine_asks_early_and_does_not_wait_for_a_miss(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    engine.step_tokens = 32
    for i in range(6):
        engine.add(Request(f"r{i}", prompt(i, 100)))
    time.sleep(0.1)  # as long as a real engine's step
    engine.run()
    assert counters["misses_known_early"] >= 4
    assert counters["lookups"] <= 2
    check_nothing_is_left(engine, side, links, 256)


def test_what_another_connector_could_not_load_is_not_stored(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    engine.step_tokens = 1000
    for name in ("bad", "good"):
        engine.add(Request(name, prompt(len(name), 100), max_tokens=10))
    engine.step()
    all_answered(links)
    engine.step()
    assert side.open_jobs == 1, "both texts in one job"
    side.taint_blocks({engine.requests["bad"].blocks[3]})
    engine.run()
    assert counters["tainted_saves"] == 1
    engine.add(Request("again bad", [*prompt(3, 100), 1], max_tokens=1))
    engine.run()
    assert engine.loaded_tokens == 0
    engine.add(Request("again good", [*prompt(4, 100), 1], max_tokens=1))
    engine.run()
    assert engine.loaded_tokens == 100, "it was in the same job, and was stored at its end"
    check_nothing_is_left(engine, side, links, 256)


def test_what_was_computed_before_a_doubtful_block_is_stored(cache: CacheProcess) -> None:
    side, links, counters = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    engine.step_tokens = 40
    engine.add(Request("bad", prompt(3, 100), max_tokens=10))
    engine.step()
    side.taint_blocks({engine.requests["bad"].blocks[9]})
    engine.run()
    engine.add(Request("again bad", [*prompt(3, 100), 1], max_tokens=1))
    engine.run()
    assert engine.loaded_tokens == 9 * GEOMETRY.block_tokens
    assert counters["tainted_saves"] == 0
    check_nothing_is_left(engine, side, links, 256)


def test_a_request_that_has_ended_is_not_stored_from_a_doubtful_block_on(cache: CacheProcess) -> None:
    side, links, _ = guest(cache)
    engine = SimulatedEngine(side, GEOMETRY, blocks=256, seed=1)
    engine.step_tokens = 1000
    engine.add(Request("bad", prompt(3, 100), max_tokens=10))
    engine.step()  # its prompt is computed, and the cache is asked for slots
    bad = engine.requests["bad"]
    doubtful = bad.blocks[3]
    engine.abort(bad)
    side.taint_blocks({doubtful})  # the other connector's word comes after the client has left
    engine.run()
    engine.add(Request("again bad", [*prompt(3, 100), 1], max_tokens=1))
    engine.run()
    assert engine.loaded_tokens <= 3 * GEOMETRY.block_tokens
    check_nothing_is_left(engine, side, links, 256)
