"""Which requests go to the cache, as whose texts, and what they may do there.

All that is read here comes from clients: it may have any type and any size. A request that says something that cannot
be read goes without the cache, neither read nor stored: who writes `"save": "no"` does not want to be stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from reprise_engine.counters import Counters
from reprise_engine.log import log
from reprise_engine.scheduler.tracked_request import Root
from reprise_vllm.adapters import Adapters


@dataclass(frozen=True, slots=True)
class Admitted:
    root: Root
    may_read: bool
    may_save: bool
    #: Its prompt was just read elsewhere, and what came of it is on its way: that is worth waiting for.
    awaited: bool
    #: Another connector brings its prompt's KV, which is what it says if it has come by then (`time.time()`); None: no.
    promised_until: float | None


class _Wishes(NamedTuple):
    read: bool = True
    save: bool = True
    awaited: bool = False
    valid_until: float = 0.0


class Unreadable(Exception):
    """A request says what has no meaning here. The message is one of a few: it holds nothing that a client wrote."""


class Admission:
    """Called from the engine's thread only. `computed_in`: the dtype that vLLM loads adapters in; `beside_others`: this
    engine has other connectors, too.
    """

    def __init__(self, counters: Counters, computed_in: str, *, may_save: bool, beside_others: bool) -> None:
        self._counters = counters
        self._adapters = Adapters(computed_in)
        self._may_save = may_save
        self._beside_others = beside_others
        self._told: set[str] = set()
        #: Stands before every adapter's digest once the weights have changed in this engine; see `EngineGuest.reset`.
        self.generation = ""
        #: Requests in whose hooks something has raised. They are taken out at their end.
        self._set_aside: set[str] = set()

    def of(self, request: Any) -> Admitted | None:
        """None: the request goes without the cache."""
        if request.request_id in self._set_aside:
            return None
        lora = request.lora_request
        adapter = self._adapters.identity(lora)
        if adapter is None or request.mm_features or request.prompt_embeds is not None or request.pooling_params:
            return None
        try:
            salt = _salt(request.cache_salt)
            wishes = _wishes(request.kv_transfer_params)
        except Unreadable as reason:
            self._tell_once(str(reason))
            self._counters.add("requests_unreadable")
            return None
        return Admitted(
            Root(salt, f"{self.generation}{adapter}"),
            may_read=wishes.read and not request.skip_reading_prefix_cache,
            may_save=wishes.save and self._may_save and self._adapters.is_only_one(lora),
            awaited=wishes.awaited,
            promised_until=wishes.valid_until if self._is_promised(request.kv_transfer_params) else None,
        )

    def _is_promised(self, params: Mapping[str, object] | None) -> bool:
        """The connector that has begun takes the mark away: should it fail, we are asked."""
        return self._beside_others and params is not None and bool(params.get("do_remote_prefill"))

    def set_aside(self, request: Any) -> None:
        self._set_aside.add(request.request_id)

    def ended(self, request: Any) -> None:
        self._set_aside.discard(request.request_id)

    def _tell_once(self, reason: str) -> None:
        """One line for each of the few reasons, however many requests have it."""
        if reason not in self._told:
            self._told.add(reason)
            log.warning("Reprise: a request goes without the cache, as do others like it: %s", reason)


def _salt(given: object) -> str:
    """Any text: the wire carries a digest of it. Raises Unreadable for what is none."""
    if given is None:
        return ""
    if not isinstance(given, str):
        raise Unreadable("its cache_salt is not a text")
    return given


def _wishes(params: object) -> _Wishes:
    """Whether a request may read and save, whether what somebody stores elsewhere is awaited, and how long what another
    engine has computed stays what it is, of `{"reprise": {"read": …, "save": …, "await": …, "valid_until": …}}`; null
    is as not given.
    """
    if params is None:
        return _Wishes()
    if not isinstance(params, Mapping):
        raise Unreadable("its kv_transfer_params are not an object")
    ours = params.get("reprise")
    if ours is None:
        return _Wishes()
    if not isinstance(ours, Mapping):
        raise Unreadable('kv_transfer_params["reprise"] is not an object')
    if not ours.keys() <= {"read", "save", "await", "valid_until"}:
        raise Unreadable('kv_transfer_params["reprise"] has other keys than "read", "save", "await" and "valid_until"')
    read, save = _switch(ours, "read", default=True), _switch(ours, "save", default=True)
    return _Wishes(read, save, _switch(ours, "await", default=False), _moment(ours, "valid_until"))


def _switch(ours: Mapping[str, object], name: str, *, default: bool) -> bool:
    given = ours.get(name)
    if given is None:
        return default
    if not isinstance(given, bool):
        raise Unreadable(f'kv_transfer_params["reprise"]["{name}"] is not true or false')
    return given


def _moment(ours: Mapping[str, object], name: str) -> float:
    given = ours.get(name)
    if given is None:
        return 0.0
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise Unreadable(f'kv_transfer_params["reprise"]["{name}"] is not a time in seconds')
    return float(given)
