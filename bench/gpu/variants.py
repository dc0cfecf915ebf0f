"""What an engine can be beside eager dense attention on one GPU: the same answers, and what is loaded.

Every variant has its engines: vLLM alone, Reprise, and a second process on the same cache. Prompts are asked cold,
found on the GPU, found in the cache after the GPU forgot them, and found by the second process. Models have random
weights that make answers depend on the KV (random_models.py). A variant that does not start leaves its error.
"""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from arms import Arms
from engine_settings import EngineSettings
from part import Part
from prompts import tokens
from report import Report, summary

_answer_tokens = 16
_host_gib = 2
#: Texts for answers and texts for times, three of each with adapters; the GPU keeps them all.
_texts_of_a_length = 6
#: Most seconds that the engines of a variant may take to start, and that a variant needs to be begun.
_start_seconds = 120.0
_least_seconds = 25.0
_adapter_names = ("a", "b")
#: Most short requests until the connector knows an adapter, which it reads in the background.
_introductions = 40
_graphs: dict[str, Any] = {"eager": False, "graph_sizes": (1, 2, 4, 8)}
_latent: dict[str, Any] = {"shape": "mla-small"}
#: What differs from the engines that all other parts have.
VARIANTS: dict[str, dict[str, Any]] = {
    "flash-attn": {"async_scheduling": False},
    "cuda-graphs": _graphs,
    "fp8": {"kv_dtype": "fp8"},
    "mla": {**_latent, "backend": "TRITON_MLA"},
    "lora": {"adapters": len(_adapter_names)},
    "async": {"async_scheduling": True},
    "triton-attn": {"backend": "TRITON_ATTN"},
    "mla-flash-attn": {**_latent, "backend": "FLASH_ATTN_MLA"},
    "cuda-graphs-async": {**_graphs, "async_scheduling": True},
    "pipeline-parallel": {"pipeline_parallel": 2},
    "tensor-parallel": {"tensor_parallel": 2},
    "fp8-e5m2": {"kv_dtype": "fp8_e5m2", "backend": "TRITON_ATTN"},
    "flashinfer": {"backend": "FLASHINFER"},
}

Adapter = tuple[str, int, str] | None


@dataclass(frozen=True)
class Variants(Part):
    """Settings of this part."""

    starts_engines: ClassVar[bool] = True

    seconds: int = 560
    shape: str = "llama-small"
    arms: tuple[str, ...] = ("none", "reprise", "reprise-again")
    only: tuple[str, ...] = tuple(VARIANTS)
    lengths: tuple[int, ...] = (1000, 1500, 2000, 2500, 3000, 4000)

    def engine(self, base: EngineSettings) -> EngineSettings:
        context = max(self.lengths) + _answer_tokens + 64
        kv_tokens = _texts_of_a_length * sum(self.lengths) + 2 * context
        sizes = {"context_tokens": context, "kv_tokens": kv_tokens, "host_gib": _host_gib}
        return replace(super().engine(base), **sizes, load_format="auto")

    def measure(self, arms: Arms, report: Report) -> None:
        """`arms`: none; what they were given says what all variants have in common."""
        unknown = set(self.only) - set(VARIANTS)
        if unknown:
            raise ValueError(f"there is no variant {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
        results = report.data["variants"] = {}
        gpus = _gpus()
        with tempfile.TemporaryDirectory(prefix="reprise-bench-models-") as folder:
            models = _Models(Path(folder))
            for name in self.only:
                out = results[name] = {}
                settings = replace(arms.settings, **VARIANTS[name])
                ranks = settings.tensor_parallel * settings.pipeline_parallel
                if gpus is not None and ranks > gpus:
                    out["ended"] = f"left out: it needs {ranks} GPUs, and here are {gpus}"
                elif report.out_of_time(_least_seconds):
                    out["ended"] = "left out: the time was up"
                else:
                    self._variant(name, settings, models, report, out)
                report.save()
                report.say(f"{name}: {_line(out)}")

    def _variant(
        self, name: str, settings: EngineSettings, models: _Models, report: Report, out: dict[str, Any]
    ) -> None:
        started = time.monotonic()
        try:
            settings = replace(settings, shape=str(models.model(settings.shape)))
            adapters: list[Adapter] = [None]
            if settings.adapters:
                adapters += [models.adapter(adapter, settings) for adapter in _adapter_names]
            out["engine"] = {**asdict(settings), "shape": settings.model.name}
            limit = min(_start_seconds, report.left())
            with Arms(self.arms, settings, start_seconds=limit) as arms:
                out |= {"start_seconds": arms.start_seconds, "arms": arms.about()}
                try:
                    self._ask(name, arms, adapters, report, out)
                finally:
                    out |= {"failed_arms": arms.failed, "warnings": _warnings(arms)}
            out["ended"] = "complete" if not out["failed_arms"] else "some arms failed"
        except Exception:
            out["ended"] = traceback.format_exc()
        out["seconds"] = time.monotonic() - started

    def _ask(self, name: str, arms: Arms, adapters: list[Adapter], report: Report, out: dict[str, Any]) -> None:
        asked = [(length, adapter) for length in self.lengths for adapter in adapters]
        texts = {length: tokens(f"variant {name} {length}", length) for length in self.lengths}
        timed = {length: tokens(f"variant {name} timed {length}", length) for length in self.lengths}
        for arm in arms.names:
            for adapter in adapters:
                _introduce(arms, arm, adapter)
            # The first prompts of an engine compile and allocate.
            arms.call(arm, "generate", prompt=tokens(f"{arm} warm-up", max(self.lengths)), max_tokens=_answer_tokens)
        answers: dict[str, list[dict[str, Any] | None]] = {}
        phases = (
            ("none cold", "none"),
            ("none gpu", "none"),
            ("cold", "reprise"),
            ("gpu", "reprise"),
            ("warm", "reprise"),
            ("second process", "reprise-again"),
        )
        for phase, arm in phases:
            if report.out_of_time():
                break
            if arm not in arms.names:
                continue
            if phase == "warm":
                out["forgotten"] = arms.call(arm, "forget")
            before = arms.call(arm, "counters") or {}
            given = answers[phase] = [
                arms.call(arm, "generate", prompt=texts[length], max_tokens=_answer_tokens, adapter=adapter)
                for length, adapter in asked
            ]
            times = [arms.call(arm, "generate", prompt=timed[length], adapter=adapter) for length, adapter in asked]
            after = arms.call(arm, "counters") or {}
            out[phase] = {
                "reused_tokens": [one and one["cached"] for one in given],
                "seconds_to_the_first_token": summary(one["seconds"] for one in times if one),
                "counted": {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)},
            }
        out["texts"] = len(asked)
        out["different_answers_cold"] = len({tuple(one["tokens"]) for one in answers.get("cold", []) if one})
        out["same_answers"] = {
            f"{one} and {other}": _same(answers.get(one, []), answers.get(other, []))
            for one, other in (
                ("none cold", "none gpu"),
                ("none cold", "cold"),
                ("cold", "gpu"),
                ("cold", "warm"),
                ("gpu", "warm"),
                ("none gpu", "warm"),
                ("warm", "second process"),
            )
        }


class _Models:
    """Models and adapters, written when they are needed first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def model(self, shape: str) -> Path:
        folder = self._folder / Path(shape).name
        if not folder.exists():
            from random_models import write_model

            source = EngineSettings(shape=shape).model
            write_model(folder, json.loads((source / "config.json").read_text()), source)
        return folder

    def adapter(self, name: str, settings: EngineSettings) -> Adapter:
        folder = settings.model.with_name(f"{settings.model.name} adapter {name}")
        if not folder.exists():
            from random_models import write_adapter

            write_adapter(folder, ord(name), settings.model)
        return name, 1 + _adapter_names.index(name), str(folder)


def _introduce(arms: Arms, arm: str, adapter: Adapter) -> None:
    """Short requests until the connector has read the adapter; requests before that go without the cache."""
    skipped = -1
    for _ in range(_introductions):
        arms.call(arm, "generate", prompt=[11, 12, 13], adapter=adapter)
        counted = (arms.call(arm, "counters") or {}).get("requests_skipped", 0)
        if counted == skipped:
            return
        skipped = counted
        time.sleep(0.05)


def _same(ones: list[dict[str, Any] | None], others: list[dict[str, Any] | None]) -> dict[str, Any]:
    """How many answers are equal, and where those that are not first differ."""
    pairs = [(one["tokens"], other["tokens"]) for one, other in zip(ones, others, strict=False) if one and other]
    differ = [
        next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        for one, other in pairs
        if one != other
    ]
    return {"same": len(pairs) - len(differ), "of": len(pairs), "first_difference_at": differ}


def _warnings(arms: Arms) -> dict[str, list[str]]:
    """What Reprise said in each engine's log."""
    said = {name: [line for line in log.splitlines() if "Reprise" in line] for name, log in arms.logs(400).items()}
    return {name: lines[-8:] for name, lines in said.items() if lines}


def _line(out: dict[str, Any]) -> str:
    same = {pair: f"{found['same']}/{found['of']}" for pair, found in out.get("same_answers", {}).items()}
    reused = {
        phase: sum(filter(None, out[phase]["reused_tokens"])) for phase in ("warm", "second process") if phase in out
    }
    times = {
        phase: round(1e3 * out[phase]["seconds_to_the_first_token"].get("median", 0))
        for phase in ("none cold", "cold", "gpu", "warm", "second process")
        if phase in out
    }
    ended = str(out["ended"]).strip().splitlines()[-1]
    return f"{ended}, {out.get('seconds', 0):.0f} s; same answers {same}; reused {reused}; first token, ms {times}"


def _gpus() -> int | None:
    """GPUs here; None without CUDA, where ranks are processes on the CPU."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else None
