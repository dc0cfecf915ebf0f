"""A real vLLM whose cache dies, or answers late, at one exact message: the same tokens as without a cache.

One vLLM for all moments. Answers are compared token by token where prompts go one at a time; for the question that
only a busy engine asks, the shipped model's checkable answers are compared.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from real_vllm.harness import BLOCK_TOKENS, Engine, Prompts
from support.cache_process import Cache
from support.fault_proxy import BEFORE, FaultProxy, Moment

moments = [
    BEFORE,
    Moment("load"),
    Moment("found"),
    Moment("found", arrives=True),
    Moment("parts", arrives=True),
    Moment("slow load", arrives=True),
    Moment("slow parts", arrives=True),
    Moment("release"),
    Moment("reserve"),
    Moment("reserved"),
    Moment("reserved", arrives=True),
    Moment("commit"),
    Moment("commit", arrives=True),
    Moment("found", late_seconds=0.7),
    Moment("reserved", late_seconds=1.5),
    Moment("commit", late_seconds=0.7),
]


class Place:
    """A cache, a fault proxy before it, a vLLM behind the proxy, and one without a connector."""

    def __init__(self, folder: Path, alone: Engine, prompts: Prompts) -> None:
        self.cache = Cache(folder)
        self.fault_proxy = FaultProxy(self.cache)
        options = {"socket": self.fault_proxy.socket, "lookup_deadline_ms": 500}
        self.engine = Engine(options=options, enable_prefix_caching=False)
        self.alone = alone
        self.prompts = prompts

    def ask(self, text: list[int]) -> int:
        """Returns how many tokens were not computed."""
        expected = self.alone.generate([text])["tokens"]
        answer = self.engine.generate([text])
        assert answer["tokens"] == expected
        return int(answer["cached"][0])

    def ask_until_reused(self, text: list[int]) -> None:
        """A cache that is back is found again, and has what was stored."""
        for _ in range(20):
            if self.ask(text) >= len(text) // 2:
                return
            self.engine.wait_until_idle()
        raise AssertionError("nothing is reused")

    def ask_until_connected(self, text: list[int]) -> None:
        """The link is made again, which takes a moment; a question that comes before is a miss."""
        for _ in range(100):
            self.ask(text)
            self.engine.wait_until_idle()
            if self.cache.stats()["lookups"] > 0:
                return
        raise AssertionError("the cache is not asked")

    def close(self) -> None:
        self.engine.kill()
        self.fault_proxy.close()
        self.cache.kill()


@pytest.fixture(scope="module")
def place(alone: Engine, prompts: Prompts) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="reprise-"))
    place = Place(folder, alone, prompts)
    yield place
    place.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("moment", moments, ids=str)
def test_the_same_tokens_whatever_happens_at_this_moment(place: Place, moment: Moment) -> None:
    if place.cache.process.poll() is not None:
        place.cache.start()
    ((text, _),) = place.prompts.about_notes(500 + moments.index(moment), 2500, 1)
    text = text[: len(text) // BLOCK_TOKENS * BLOCK_TOKENS - 5]  # it ends in a block that is not whole
    place.ask_until_reused(text)
    place.engine.wait_until_idle()
    if moment.kind.startswith("slow"):
        place.cache.stop()  # what it had is on disk now
        place.cache.start()
        place.ask_until_connected(text[100:0:-1])  # one that is not stored: nothing is brought back by asking

    place.fault_proxy.arm(moment)
    place.ask(text + place.prompts.encode(" And then?") * 20)  # something to load, and something to save
    place.engine.wait_until_idle()
    assert place.fault_proxy.struck(), "this moment has not come"

    if not moment.late_seconds:
        assert place.cache.process.poll() is not None
        place.cache.start()
    place.ask_until_reused(text)
    place.engine.wait_until_idle()
    assert place.cache.stats()["leases"] == 0


def test_a_busy_engine_whose_cache_dies_at_its_early_question_answers_right(place: Place) -> None:
    if place.cache.process.poll() is not None:
        place.cache.start()
    asked = place.prompts.about_notes(600, 2500, 4)
    place.ask_until_reused(asked[0][0])
    place.engine.wait_until_idle()
    place.fault_proxy.arm(Moment("lookup"))
    texts = [text for text, _ in asked]
    answer = place.engine.generate(texts)
    place.engine.wait_until_idle()
    assert place.fault_proxy.struck()
    for tokens, alone, (_, expected) in zip(
        answer["tokens"], place.alone.generate(texts)["tokens"], asked, strict=True
    ):
        said = place.prompts.decode(tokens)
        assert said.startswith(expected) or tokens == alone
