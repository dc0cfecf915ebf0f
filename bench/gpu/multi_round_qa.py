"""Users with long histories who ask on: how many questions a second an arm answers with a first token within a second.

The users' histories are read once, untimed, by every arm; together they are more than the GPU's cache holds. Then the
rate of questions grows step by step, arms in turn at every step, until an arm's p90 TTFT passes the limit or it cannot
keep up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from arms import Arms
from engine_settings import EngineSettings
from part import Part
from prompts import tokens
from report import Report, percentile, summary

#: An arm keeps up when it was asked at least this share of what was to be asked.
_kept_up = 0.9


@dataclass(frozen=True)
class MultiRoundQa(Part):
    """Settings of this part. `rates` are questions a second over all users, asked at fixed gaps."""

    seconds: int = 240
    arms: tuple[str, ...] = ("none", "native", "lmcache", "reprise")
    users: int = 24
    system: int = 1000
    history: int = 6000
    question: int = 50
    answer: int = 32
    rates: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0)
    level_seconds: float = 8.0
    ttft_limit: float = 1.0
    gpu_tokens: int = 80_000

    def engine(self, base: EngineSettings) -> EngineSettings:
        return replace(
            super().engine(base),
            context_tokens=self._longest() + 50,
            kv_tokens=self.gpu_tokens,
            sequences=max(base.sequences, self.users),
        )

    def measure(self, arms: Arms, report: Report) -> None:
        names = self.running(arms)
        histories = [
            tokens("system", self.system) + tokens(f"history {user}", self.history) for user in range(self.users)
        ]
        for name in names:
            arms.call(name, "closed_loop", prompts=histories, in_flight=4, max_tokens=1, seconds=report.left())
        levels: list[dict[str, Any]] = []
        report.data |= {"levels": levels, "highest_rate": dict.fromkeys(names, 0.0)}
        racing = list(names)
        for rate in self.rates:
            if not racing or report.out_of_time((self.level_seconds + 8) * len(racing)):
                break
            level: dict[str, Any] = {"rate": rate}
            levels.append(level)
            for name in arms.in_turn(racing):
                given = self._level(arms, name, rate, histories)
                if given is None:
                    racing.remove(name)
                    continue
                level[name] = given
                if given["holds"]:
                    report.data["highest_rate"][name] = rate
                else:
                    racing.remove(name)
                report.save()
            shown = ", ".join(
                f"{name} p90 {level[name]['ttft'].get('p90', 0):.3f} s" for name in names if name in level
            )
            report.say(f"{rate:g} questions a second: {shown}")
        report.save()

    def _level(self, arms: Arms, name: str, rate: float, histories: list[list[int]]) -> dict[str, Any] | None:
        gap = len(histories) / rate
        count = int(self.level_seconds / gap) + 1
        users = [
            {
                "start": index / rate,
                "history": history,
                "questions": [tokens(f"ask {rate} {index} {n}", self.question) for n in range(count)],
            }
            for index, history in enumerate(histories)
        ]
        given = arms.call(
            name,
            "conversations",
            users=users,
            gap=gap,
            end=self.level_seconds,
            max_tokens=self.answer,
            seconds=self.level_seconds * 3 + 60,
        )
        if given is None:
            return None
        requests = given["requests"]
        ttft = summary(r["ttft"] for r in requests)
        asked = len(requests) / (rate * self.level_seconds)
        gaps = [r["gap_mean"] for r in requests if r["gap_mean"] is not None]
        return {
            "ttft": ttft,
            "asked_share": asked,
            "holds": bool(requests)
            and percentile((r["ttft"] for r in requests), 90) <= self.ttft_limit
            and asked >= _kept_up
            and not given["left_out"],
            "gap_mean": summary(gaps),
            "gap_max": max((r["gap_max"] or 0.0 for r in requests), default=0.0),
            "hit_share": sum(r["cached"] for r in requests) / max(1, sum(r["prompt_tokens"] for r in requests)),
            "seconds": given["seconds"],
        }

    def _longest(self) -> int:
        most = max(int(self.level_seconds * rate / self.users) + 1 for rate in self.rates)
        return self.system + self.history + most * (self.question + self.answer)
