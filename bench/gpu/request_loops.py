"""Many requests through one engine, stepped here so that the time of every token is seen: closed and open loops.

Times are of one clock (`time.perf_counter`). A request's TTFT counts from when it was to be sent, so time that it
waited for this loop's current step is in it, as it would be for a client.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Watched:
    """One request under way."""

    sent: float
    prompt_tokens: int
    times: list[float] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    cached: int = 0

    def result(self, started: float) -> dict[str, Any]:
        gaps = [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]
        return {
            "at": round(self.sent - started, 4),
            "ttft": self.times[0] - self.sent,
            "seconds": self.times[-1] - self.sent,
            "gap_mean": sum(gaps) / len(gaps) if gaps else None,
            "gap_max": max(gaps, default=None),
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": len(self.answer),
            "cached": self.cached,
            "first": self.answer[0],
        }


class RequestLoop:
    """Requests under way in an engine of this process."""

    def __init__(self, engine: Any, params: Any) -> None:
        self._engine = engine
        self._params = params
        self._next = 0
        self.live: dict[str, tuple[Any, Watched]] = {}

    def send(self, tag: Any, prompt: list[int], sent: float) -> None:
        name = str(self._next)
        self._next += 1
        self.live[name] = (tag, Watched(sent, len(prompt)))
        self._engine.add_request(name, {"prompt_token_ids": prompt}, self._params)

    def step(self) -> list[tuple[Any, Watched]]:
        """One step of the engine: the requests that ended in it."""
        ended = []
        for output in self._engine.step():
            now = time.perf_counter()
            found = self.live.get(output.request_id)
            if found is None:
                continue
            watched = found[1]
            new = output.outputs[0].token_ids
            if new:
                watched.times.append(now)
                watched.answer.extend(new)
            watched.cached = max(watched.cached, output.num_cached_tokens or 0)
            if output.finished:
                ended.append(self.live.pop(output.request_id))
        return ended


def closed_loop(engine: Any, prompts: list[list[int]], in_flight: int, params: Any) -> dict[str, Any]:
    """All prompts, `in_flight` at a time: the next is sent when one has ended."""
    loop = RequestLoop(engine, params)
    waiting = deque(enumerate(prompts))
    results: list[Any] = [None] * len(prompts)
    started = time.perf_counter()
    while waiting or loop.live:
        while waiting and len(loop.live) < in_flight:
            index, prompt = waiting.popleft()
            loop.send(index, prompt, time.perf_counter())
        for index, watched in loop.step():
            results[index] = watched.result(started)
    return {"seconds": time.perf_counter() - started, "requests": results}


def conversations(engine: Any, users: list[dict[str, Any]], gap: float, end: float, params: Any) -> dict[str, Any]:
    """Users who ask one question after another, each with the whole conversation before it as its prompt.

    A user: {"start": seconds, "history": tokens, "questions": [tokens, ...]}. Each asks `gap` seconds after the
    question before, or when that one's answer has ended, if that is later. Nothing is sent after `end` seconds.
    """
    loop = RequestLoop(engine, params)
    texts = [list(user["history"]) for user in users]
    asked = [0] * len(users)
    results = []
    left_out = 0
    started = time.perf_counter()
    due = [(started + user["start"], index) for index, user in enumerate(users)]
    heapq.heapify(due)
    while due or loop.live:
        now = time.perf_counter()
        while due and due[0][0] <= now:
            when, index = heapq.heappop(due)
            if when > started + end:
                continue
            if now > started + end + 5:
                left_out += 1
                continue
            texts[index] += users[index]["questions"][asked[index]]
            asked[index] += 1
            loop.send(index, list(texts[index]), when)
        if not loop.live:
            if due:
                time.sleep(max(0.0, min(due[0][0] - time.perf_counter(), 0.01)))
            continue
        for index, watched in loop.step():
            results.append({"user": index, **watched.result(started)})
            texts[index] += watched.answer
            if asked[index] < len(users[index]["questions"]):
                heapq.heappush(due, (max(watched.sent + gap, time.perf_counter()), index))
    return {"seconds": time.perf_counter() - started, "requests": results, "left_out": left_out}
