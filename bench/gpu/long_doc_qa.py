"""Long documents asked about again and again: more of them than the GPU's cache holds, a few requests in flight.

A round asks one new question about every document, in the same order, as LMCache's benchmark of this name does. Two
arms cannot share a round, so whole rounds alternate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arms import Arms
from engine_settings import HOST_ARMS, EngineSettings
from part import Part
from prompts import tokens
from report import Report, ratios, summary

_question_tokens = 50
#: Of an arm's memory, what it is trusted to hold of KV.
_usable = 0.95
#: Memory of the host that is left to everything but KV.
_spare_gib = 32


@dataclass(frozen=True)
class LongDocQa(Part):
    """Settings of this part. Fewer `documents` are used where the host's memory cannot hold them for every arm."""

    seconds: int = 300
    arms: tuple[str, ...] = ("none", "native", "lmcache", "reprise")
    documents: int = 46
    tokens: int = 10_000
    rounds: int = 3
    in_flight: int = 4
    answer: int = 100
    #: What the GPU's cache holds.
    gpu_tokens: int = 80_000
    #: Documents for two more rounds per arm, cold and from its memory, with the times of hooks and steps; 0: none.
    hook_documents: int = 0

    def engine(self, base: EngineSettings) -> EngineSettings:
        engine = replace(
            super().engine(base),
            context_tokens=self.tokens + _question_tokens + self.answer + 50,
            kv_tokens=self.gpu_tokens,
            sequences=max(base.sequences, self.in_flight),
        )
        wanted = math.ceil(self._text_bytes(engine) * self.documents / _usable / 2**30)
        return replace(engine, host_gib=max(base.host_gib, min(wanted, self._most_gib())))

    def measure(self, arms: Arms, report: Report) -> None:
        kept = int(arms.settings.host_gib * 2**30 * _usable) // self._text_bytes(arms.settings)
        count = min(self.documents, kept)
        report.data |= {"documents": count, "documents_wanted": self.documents, "gpu_tokens": arms.settings.kv_tokens}
        documents = [tokens(f"document {index}", self.tokens) for index in range(count)]
        for name in self.running(arms):
            warm_up = [tokens(f"document warm-up {index}", self.tokens) for index in range(2)]
            arms.call(name, "closed_loop", prompts=warm_up, in_flight=2, max_tokens=8)
        rounds: list[dict[str, Any]] = []
        report.data["rounds"] = rounds
        slowest = 0.0
        for number in range(self.rounds):
            if report.out_of_time(slowest * len(self.running(arms)) + 5):
                break
            rounds.append({})
            prompts = [text + tokens(f"question {number} {i}", _question_tokens) for i, text in enumerate(documents)]
            for name in arms.in_turn(self.running(arms)):
                given = arms.call(
                    name,
                    "closed_loop",
                    prompts=prompts,
                    in_flight=self.in_flight,
                    max_tokens=self.answer,
                    seconds=max(30.0, report.left()),
                )
                if given is None:
                    continue
                requests = given["requests"]
                slowest = max(slowest, given["seconds"])
                rounds[-1][name] = {
                    "seconds": given["seconds"],
                    "ttft": summary(r["ttft"] for r in requests),
                    "gap_mean": summary(r["gap_mean"] for r in requests if r["gap_mean"] is not None),
                    "hit_share": sum(r["cached"] for r in requests) / sum(r["prompt_tokens"] for r in requests),
                    "first": [r["first"] for r in requests],
                }
                report.save()
            self._compare(report, rounds)
        hooks = report.data["hooks"] = {}
        for number in range(2 if self.hook_documents else 0):
            prompts = [
                tokens(f"hooks document {index}", self.tokens) + tokens(f"question {number}", _question_tokens)
                for index in range(self.hook_documents)
            ]
            for name in self.running(arms):
                hooks[f"{name}, {'again' if number else 'cold'}"] = arms.call(
                    name, "hook_times", prompts=prompts, in_flight=self.in_flight, max_tokens=self.answer
                )
        report.save()

    def _compare(self, report: Report, rounds: list[dict[str, Any]]) -> None:
        shown = rounds[-1]
        shown["ratios"] = {
            "ttft": ratios({name: given["ttft"]["mean"] for name, given in shown.items()}),
            "seconds": ratios({name: given["seconds"] for name, given in shown.items() if name != "ratios"}),
        }
        line = ", ".join(
            f"{name} {given['ttft']['mean']:.3f} s TTFT, {given['seconds']:.1f} s, {given['hit_share']:.0%} reused"
            for name, given in shown.items()
            if name != "ratios"
        )
        report.say(f"round {len(rounds)}: {line}")

    def _text_bytes(self, engine: EngineSettings) -> int:
        """KV of one document with the questions and answers of all rounds."""
        return (self.tokens + self.rounds * (_question_tokens + self.answer)) * engine.token_bytes

    def _most_gib(self) -> int:
        """What one arm may take of this machine's memory when all arms of this part hold theirs at once."""
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) // 2**20
        holders = sum(name in HOST_ARMS for name in self.arms)
        return max(1, (available - _spare_gib) // max(1, holders))
