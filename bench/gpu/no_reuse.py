#!/usr/bin/env python3
"""What a cache costs when nothing is ever read again: fresh prompts, many in flight, throughput against vLLM alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from arms import Arms
from engine_settings import EngineSettings
from part import Part
from prompts import tokens
from report import Report, ratios, summary


@dataclass(frozen=True)
class NoReuse(Part):
    """Settings of this part."""

    seconds: int = 120
    in_flight: int = 64
    requests: int = 192
    tokens: int = 1000
    answer: int = 50
    rounds: int = 3

    def engine(self, base: EngineSettings) -> EngineSettings:
        needed = self.in_flight * (self.tokens + self.answer + 16)
        return replace(
            super().engine(base),
            context_tokens=self.tokens + self.answer + 50,
            kv_tokens=max(base.kv_tokens, needed),
            sequences=max(base.sequences, self.in_flight),
        )

    def measure(self, arms: Arms, report: Report) -> None:
        names = self.running(arms)
        for name in names:
            warm_up = [tokens(f"no-reuse warm-up {index}", self.tokens) for index in range(self.in_flight)]
            arms.call(name, "closed_loop", prompts=warm_up, in_flight=self.in_flight, max_tokens=8)
        rates: dict[str, list[float]] = {}
        rounds: list[dict[str, Any]] = []
        report.data["rounds"] = rounds
        slowest = 0.0
        for number in range(self.rounds):
            if report.out_of_time(slowest * len(names) + 2):
                break
            rounds.append({})
            prompts = [tokens(f"no-reuse {number} {index}", self.tokens) for index in range(self.requests)]
            for name in arms.in_turn(names):
                given = arms.call(
                    name, "closed_loop", prompts=prompts, in_flight=self.in_flight, max_tokens=self.answer
                )
                if given is None:
                    continue
                requests = given["requests"]
                slowest = max(slowest, given["seconds"])
                done = sum(r["prompt_tokens"] + r["answer_tokens"] for r in requests)
                rates.setdefault(name, []).append(done / given["seconds"])
                rounds[-1][name] = {
                    "seconds": given["seconds"],
                    "tokens_per_second": done / given["seconds"],
                    "cached": sum(r["cached"] for r in requests),
                    "ttft": {k: v for k, v in summary(r["ttft"] for r in requests).items() if k != "all"},
                    "gap_max": max(r["gap_max"] or 0.0 for r in requests),
                }
                report.save()
            report.data["tokens_per_second"] = {name: summary(given) for name, given in rates.items()}
            medians = {name: summary(given)["median"] for name, given in rates.items()}
            report.data["of_none"] = {
                name: rate / medians["none"] for name, rate in medians.items() if medians.get("none")
            }
            report.data["ratios"] = ratios(medians)  # of rates: above 1, reprise did more
            report.save()
        shown = ", ".join(f"{name} {share:.3f}" for name, share in report.data.get("of_none", {}).items())
        report.say(f"throughput as a share of none's: {shown}")


if __name__ == "__main__":
    from run import main

    main("no-reuse")
