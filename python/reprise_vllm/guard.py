"""No fault of ours reaches vLLM: an exception in one of its hooks would end the engine.

A hook that raises answers with its fallback instead, is counted, and is logged; a connector that goes on raising is
switched off for good.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

log = logging.getLogger("vllm.reprise")

#: Faults after which a connector is switched off.
faults_tolerated = 16
_faults_logged = 3

Hook = TypeVar("Hook", bound=Callable[..., Any])


class Guarded(Protocol):
    #: How often each hook has raised.
    faults: dict[str, int]
    #: Every hook answers with its fallback from now on.
    switched_off: bool


def guarded(fallback: Callable[[Any], Any]) -> Callable[[Hook], Hook]:
    """Makes a hook answer `fallback(connector)` where it would raise, and once the connector is switched off."""

    def decorate(hook: Hook) -> Hook:
        @functools.wraps(hook)
        def safe(connector: Any, *arguments: Any, **named: Any) -> Any:
            if connector.switched_off:
                return fallback(connector)
            try:
                return hook(connector, *arguments, **named)
            except Exception:
                note_fault(connector, hook.__name__)
                return fallback(connector)

        return cast(Hook, safe)

    return decorate


def note_fault(connector: Guarded, hook: str) -> None:
    """Counts and logs the exception that is being handled."""
    connector.faults[hook] = connector.faults.get(hook, 0) + 1
    total = sum(connector.faults.values())
    if total <= _faults_logged:
        log.exception("Reprise: %s failed; this request goes on without the cache", hook)
    if total == faults_tolerated:
        connector.switched_off = True
        log.error("Reprise is switched off after %d faults (%s): vLLM goes on without it", total, connector.faults)
