"""vLLM's connector interface by generation: which one is spoken, chosen by the release that is installed."""

from __future__ import annotations

import re

from reprise_vllm.generations.generation import Generation, Release
from reprise_vllm.generations.v0_20 import From020To026
from reprise_vllm.generations.v0_27 import From027To033

_first: Release = (0, 20)
_last: Release = (0, 33)
known_releases = "0.20 to 0.33"


def generation_of(version: str) -> tuple[Generation, bool]:
    """The generation of a vLLM's `__version__`, and whether that release is a known one.

    What is not known is taken for one of the newest generation: whether it is, its signatures tell (contract.py).
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    release = (int(numbers[1]), int(numbers[2])) if numbers else _last
    known = numbers is not None and _first <= release <= _last
    if known and release < (0, 27):
        return From020To026(release), True
    return From027To033(), known
