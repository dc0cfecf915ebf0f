"""What a cache costs when nothing is ever read again: fresh prompts, many in flight, throughput against vLLM alone.

Every round has fresh prompts and all arms; shares are of `none` in the same round, and their spread says what a percent
means. A last round, which does not count, says what the hooks of the arms with a connector take of the engine's thread.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import Any

from arms import Arms
from engine_settings import EngineSettings
from part import Part
from prompts import tokens
from report import Report, ratios, summary

_profiled_arms = ("noop", "native", "lmcache", "reprise")


@dataclass(frozen=True)
class NoReuse(Part):
    """Settings of this part."""

    seconds: int = 300
    in_flight: int = 64
    requests: int = 192
    tokens: int = 1000
    answer: int = 50
    rounds: int = 8

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
        profiled = [name for name in names if name in _profiled_arms]
        for number in range(self.rounds):
            if report.out_of_time(slowest * (len(names) + len(profiled)) + 2):
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
            shares = {
                name: [
                    of[name]["tokens_per_second"] / of["none"]["tokens_per_second"] for of in rounds if _both(of, name)
                ]
                for name in names
            }
            report.data["of_none"] = {name: summary(given) | _error(given) for name, given in shares.items() if given}
            report.data["ratios"] = ratios(medians)  # of rates: above 1, reprise did more
            report.save()
        shown = ", ".join(
            f"{name} {share['median']:.3f} ({share['min']:.3f} to {share['max']:.3f})"
            for name, share in report.data.get("of_none", {}).items()
        )
        report.say(f"throughput as a share of none's: {shown}")
        hooks = report.data["hooks"] = {}
        prompts = [tokens(f"no-reuse hooks {index}", self.tokens) for index in range(self.requests)]
        for name in profiled:
            if slowest > 0 and not report.out_of_time(slowest):
                hooks[name] = arms.call(
                    name, "hook_times", prompts=prompts, in_flight=self.in_flight, max_tokens=self.answer
                )
                report.save()


def _both(of: dict[str, Any], name: str) -> bool:
    return name in of and "none" in of


def _error(shares: list[float]) -> dict[str, float]:
    """The standard error of their mean."""
    return {"error": statistics.stdev(shares) / len(shares) ** 0.5} if len(shares) > 1 else {}
