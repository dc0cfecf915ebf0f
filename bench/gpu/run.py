#!/usr/bin/env python3
"""Runs parts of the comparison, one JSON file each. Parts that can share engines and follow one another do.

    run.py [--out DIR] [--budget SECONDS] [--arms none,reprise] PART...
    PART: a name, with settings of its own after colons: prefix:lengths=4000+16000:shape=llama-1b

No part ends the run: what fails leaves its traceback in its JSON.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arms import Arms
from disk_restart import DiskRestart
from engine_settings import EngineSettings
from long_doc_qa import LongDocQa
from multi_round_qa import MultiRoundQa
from no_reuse import NoReuse
from part import Part
from prefix import Prefix
from report import Report, machine
from tensor_parallel import TensorParallel
from variants import Variants

PARTS: dict[str, Callable[[], Part]] = {
    "prefix": Prefix,
    "prefix-16k": Prefix,
    "prefix-4k": lambda: Prefix(lengths=(4000,)),
    "prefix-64k": lambda: Prefix(lengths=(64_000,), prompts=3),
    "prefix-1b": lambda: Prefix(lengths=(16_000, 4000), shape="llama-1b"),
    "long-doc-qa": LongDocQa,
    "no-reuse": NoReuse,
    "multi-round-qa": MultiRoundQa,
    "disk-restart": DiskRestart,
    "tensor-parallel": TensorParallel,
    "variants": Variants,
}
#: What the end of a run takes: ending engines, writing files.
_end_seconds = 10.0


@dataclass
class Planned:
    """A part as the command line asks for it."""

    title: str
    part: Part
    engine: EngineSettings


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    base = EngineSettings(
        shape=options.shape,
        kv_tokens=options.kv_tokens,
        host_gib=options.host_gib,
        eager=not options.cuda_graphs,
        load_format=options.load_format,
    )
    planned = [_planned(text, base, options.arms) for text in options.parts]
    deadline = time.monotonic() + options.budget
    around = machine()
    for group in _groups(planned):
        _run_group(group, options.out, deadline, around)


def _run_group(group: list[Planned], out: Path, deadline: float, around: dict[str, Any]) -> None:
    engine = group[0].engine
    for planned in group[1:]:
        engine = engine.joined(planned.engine) or engine
    waited_for = [planned.part for planned in group if not planned.part.starts_engines]
    names = list(dict.fromkeys(name for part in waited_for for name in part.arms))
    waiting = list(group)
    left = deadline - time.monotonic() - _end_seconds
    try:
        if left < 20:
            raise TimeoutError("the budget of this run was used up before this part")
        print(f"starting {', '.join(names) or 'nothing'} for {', '.join(p.title for p in group)}", flush=True)
        with Arms(names, engine, start_seconds=min(300.0, left)) as arms:
            if names:
                print(f"{', '.join(arms.names)} run after {arms.start_seconds:.1f} s", flush=True)
            while waiting:
                _run_part(waiting.pop(0), arms, out, deadline, around)
    except Exception:
        for planned in waiting:
            report = Report(out / f"{planned.title}.json", planned.title, 0)
            report.data |= {"ended": traceback.format_exc(), "machine": around}
            report.save()
        traceback.print_exc()


def _run_part(planned: Planned, arms: Arms, out: Path, deadline: float, around: dict[str, Any]) -> None:
    left = deadline - time.monotonic() - _end_seconds
    report = Report(out / f"{planned.title}.json", planned.title, min(planned.part.seconds, left))
    report.data |= {
        "settings": asdict(planned.part),
        "engine": asdict(arms.settings),
        "kv_bytes_per_token": arms.settings.token_bytes,
        "start_seconds": round(arms.start_seconds, 1),
        "registration_seconds": round(arms.registration_seconds, 1),
        "arms": arms.about(),
        "machine": around,
    }
    try:
        if left < 5:
            raise TimeoutError("the budget of this run was used up before this part")
        if not planned.part.starts_engines and not planned.part.running(arms):
            raise RuntimeError(f"none of the arms {', '.join(planned.part.arms)} runs: see failed_arms")
        planned.part.measure(arms, report)
        report.data["ended"] = "out of time" if report.data.get("out_of_time") else "complete"
    except Exception:  # the other parts go on
        report.data["ended"] = traceback.format_exc()
    except BaseException:
        report.data["ended"] = traceback.format_exc()
        raise
    finally:
        report.data |= {"failed_arms": arms.failed, "logs": arms.logs()}
        report.save()
        report.say(f"ended: {str(report.data['ended']).strip().splitlines()[-1]}")


def _groups(planned: list[Planned]) -> list[list[Planned]]:
    """Parts that follow one another and can use the same engines."""
    groups: list[list[Planned]] = []
    joined: EngineSettings | None = None
    for item in planned:
        both = joined.joined(item.engine) if joined is not None else None
        if both is None or item.part.starts_engines:
            groups.append([item])
            joined = None if item.part.starts_engines else item.engine
        else:
            groups[-1].append(item)
            joined = both
    return groups


def _planned(text: str, base: EngineSettings, arms: str) -> Planned:
    name, *settings = text.split(":")
    if name not in PARTS:
        sys.exit(f"there is no part {name}; there are {', '.join(PARTS)}")
    try:
        given = dict(setting.split("=", 1) for setting in settings)
        title = given.pop("title", name)
        part = PARTS[name]().given(({"arms": arms.replace(",", "+")} if arms else {}) | given)
    except ValueError as error:
        sys.exit(f"{text}: {error}")
    return Planned(title, part, part.engine(base))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", metavar="PART", help="part[:setting=value]...")
    parser.add_argument("--out", type=Path, default=Path("results"), help="where the JSON files go")
    parser.add_argument(
        "--budget", type=float, default=3600, help="seconds for all of this run, engine starts included"
    )
    parser.add_argument("--arms", default="", help="the arms of every part, instead of each part's own")
    parser.add_argument("--shape", default="llama-8b", help="a folder of shapes/, or a model's folder")
    parser.add_argument("--load-format", default="dummy", help="auto: the weights of the model's folder")
    parser.add_argument("--host-gib", type=int, default=24, help="memory of the host that each arm may fill")
    parser.add_argument("--kv-tokens", type=int, default=34_000, help="least size of the GPU's KV cache")
    parser.add_argument("--cuda-graphs", action="store_true", help="CUDA graphs and compilation instead of eager steps")
    return parser.parse_args()


if __name__ == "__main__":
    main()
