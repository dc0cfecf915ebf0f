"""One prompt at a time: read afresh, found on the GPU, found in the arm's cache after the GPU has forgotten it.

Arms alternate prompt by prompt. Each arm sees the same prompts; its warm answers must begin as its cold ones did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from arms import Arms
from engine_settings import HOST_ARMS, EngineSettings
from part import Part
from prompts import tokens
from report import Report, ratios, summary

_vram_repeats = 6
_answer_tokens = 16
_profiled_arms = ("none", "noop", "reprise")


@dataclass(frozen=True)
class Prefix(Part):
    """Settings of this part."""

    lengths: tuple[int, ...] = (16_000,)
    #: Most prompts of one length; fewer where the arms' host memory does not hold them.
    prompts: int = 6
    #: Least warm samples an arm.
    samples: int = 18
    #: Prompts of a length that each arm reads before what is counted.
    warm_ups: int = 2
    #: Also compare a longer answer, cold and warm.
    answers: bool = True
    #: Also say where the time goes in the arms none, noop and reprise.
    profile: bool = False

    def engine(self, base: EngineSettings) -> EngineSettings:
        longest = max(self.lengths)
        context = longest + _answer_tokens + 400
        return replace(super().engine(base), context_tokens=context, kv_tokens=max(base.kv_tokens, context + 1024))

    def measure(self, arms: Arms, report: Report) -> None:
        lengths = report.data["lengths"] = {}
        for length in self.lengths:
            if report.out_of_time(10):
                return
            self._length(arms, report, length, lengths.setdefault(str(length), {}))

    def _length(self, arms: Arms, report: Report, length: int, out: dict[str, Any]) -> None:
        count = max(1, min(self.prompts, int(arms.settings.host_tokens * 0.9) // length))
        texts = [tokens(f"prefix {length} {index}", length) for index in range(count)]
        out |= {"prompts": count}
        for index in range(self.warm_ups):
            for name in self.running(arms):
                arms.call(name, "generate", prompt=tokens(f"prefix warm-up {length} {index}", length))

        samples: dict[str, dict[str, list[dict[str, Any]]]] = {"cold": {}, "vram": {}, "warm": {}}

        def ask(phase: str, names: list[str], text: list[int], index: int) -> None:
            for name in names:
                answer = arms.call(name, "generate", prompt=text)
                if answer is not None:
                    samples[phase].setdefault(name, []).append({"prompt": index, **answer})

        for index, text in enumerate(texts):
            ask("cold", arms.in_turn(self.running(arms)), text, index)
        for _ in range(_vram_repeats):
            ask("vram", arms.in_turn(self.running(arms)), texts[-1], count - 1)
        self._write(report, out, samples)
        report.say(f"{length} tokens, cold: {_medians(out, 'cold')}; on the GPU: {_medians(out, 'vram')}")

        resets: dict[str, list[Any]] = {}
        for _ in range(math.ceil(self.samples / count)):
            if report.out_of_time(5):
                break
            hosts = [name for name in arms.in_turn(self.running(arms)) if name in HOST_ARMS]
            for name in hosts:
                resets.setdefault(name, []).append(arms.call(name, "forget"))
            for index, text in enumerate(texts):
                ask("warm", [name for name in hosts if name in arms.names], text, index)
        out["forgotten"] = {name: all(r and r["forgotten"] for r in given) for name, given in resets.items()}
        self._write(report, out, samples)
        report.say(f"{length} tokens, warm: {_medians(out, 'warm')}; ratios {out['ratios'].get('warm')}")

        if self.answers:
            out["answers"] = self._answers(arms, length)
        if self.profile and not report.out_of_time(30):
            out["profile"] = {n: self._profile(arms, n, length) for n in _profiled_arms if n in self.running(arms)}
        report.save()

    def _write(self, report: Report, out: dict[str, Any], samples: dict[str, Any]) -> None:
        for phase, by_arm in samples.items():
            out[phase] = {
                name: {
                    "seconds": summary(s["seconds"] for s in given),
                    "cached": sorted({s["cached"] for s in given}),
                }
                for name, given in by_arm.items()
            }
        cold_first = {name: {s["prompt"]: s["first"] for s in given} for name, given in samples["cold"].items()}
        out["same_first_token"] = {
            name: all(s["first"] == cold_first[name].get(s["prompt"]) for s in given)
            for name, given in samples["warm"].items()
        }
        out["different_first_tokens"] = len({t for firsts in cold_first.values() for t in firsts.values()})
        medians = {phase: _numbers(out, phase) for phase in samples}
        out["ratios"] = {phase: ratios(figures) for phase, figures in medians.items()}
        # An engine without a cache on the host computes a forgotten prompt again.
        out["ratios"]["warm"] |= ratios(medians["warm"] | {"none": medians["cold"].get("none")})
        least = {name: given["seconds"].get("min") for name, given in out["warm"].items()}
        out["ratios"]["warm_min"] = ratios(least)
        report.save()

    def _answers(self, arms: Arms, length: int) -> dict[str, Any]:
        """A longer answer to a fresh prompt, cold and warm."""
        text = tokens(f"prefix answer {length}", length)
        out: dict[str, Any] = {}
        for name in self.running(arms):
            cold = arms.call(name, "generate", prompt=text, max_tokens=_answer_tokens)
            forgot = arms.call(name, "forget")
            warm = arms.call(name, "generate", prompt=text, max_tokens=_answer_tokens)
            if cold and warm and forgot:
                out[name] = {
                    "same": cold["tokens"] == warm["tokens"],
                    "cached": warm["cached"],
                    "cold": cold["tokens"],
                    "warm": warm["tokens"],
                }
        return out

    def _profile(self, arms: Arms, name: str, length: int) -> dict[str, Any]:
        """Marks and calls of a cold, a VRAM and a warm request; two prompts, as each request is cold once."""
        first, second = (tokens(f"prefix profile {name} {length} {index}", length) for index in range(2))
        out: dict[str, Any] = {}
        for phase in ("cold", "vram", "warm"):
            if phase == "warm":
                arms.call(name, "forget")
            out[phase] = {
                "marks": arms.call(name, "marks", prompt=first),
                "calls": arms.call(name, "calls", prompt=second),
            }
        return out


def _numbers(out: dict[str, Any], phase: str) -> dict[str, float | None]:
    return {name: given["seconds"].get("median") for name, given in out.get(phase, {}).items()}


def _medians(out: dict[str, Any], phase: str) -> str:
    return ", ".join(f"{name} {(seconds or 0) * 1e3:.1f} ms" for name, seconds in _numbers(out, phase).items())
