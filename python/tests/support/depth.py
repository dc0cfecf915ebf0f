"""How long soak tests go on: REPRISE_TEST_DEPTH, as test/support/depth.ts has it. Small by default, full in CI."""

from __future__ import annotations

import math
import os


def times_full(typed: str | None) -> float | None:
    """None is small; else so many times full."""
    if typed in (None, "", "small"):
        return None
    try:
        times = 1.0 if typed == "full" else float(str(typed))
    except ValueError:
        times = 0.0
    if math.isfinite(times) and times > 0:
        return times
    raise ValueError(f'REPRISE_TEST_DEPTH is "small", "full" or how many times full, as 10; not {typed!r}')


_TIMES = times_full(os.environ.get("REPRISE_TEST_DEPTH"))
_SEED = int(os.environ.get("REPRISE_TEST_SEED") or 0)


def rounds(*, small: int, full: int) -> int:
    """As many rounds as are asked for."""
    return small if _TIMES is None else math.ceil(full * _TIMES)


def seeds(*, small: int, full: int) -> range:
    """Seeds for `parametrize`, one a round; REPRISE_TEST_SEED moves them."""
    return range(_SEED, _SEED + rounds(small=small, full=full))
