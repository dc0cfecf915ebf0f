"""Whether the vLLM at hand has the interface that its generation is known to have, checked at start-up.

When something is missing or takes other arguments, the connector says so once and does nothing, instead of failing in
the middle of somebody's request.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping

from reprise_vllm.generations.generation import Generation, Members, Parameters, common, places

#: Members of vLLM's classes. One whose name ends in "!" is abstract: a connector must have it.
Surface = Mapping[str, Members]

_signs: Mapping[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def surface() -> Surface:
    """Of the vLLM that is installed."""
    found: dict[str, Members] = {}
    for name, module in places.items():
        try:
            found[name] = _members(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError):
            continue  # a class that is not there has no members
    return found


def differences(generation: Generation, found: Surface) -> list[str]:
    """How `found` differs from what is relied on. Empty when it does not."""
    complaints: list[str] = []
    for wanted, must_be_there in ((common, True), (generation.required, True), (generation.sometimes, False)):
        for class_name, members in wanted.items():
            theirs = found.get(class_name, {})
            for name, parameters in members.items():
                if name in theirs:
                    if parameters is not None and theirs[name] != parameters:
                        complaints.append(f"{class_name}.{name}{_shown(theirs[name])} is not {_shown(parameters)}")
                elif must_be_there:
                    complaints.append(f"{class_name}.{name} is missing")
    hooks = found.get("KVConnectorBase_V1", {})
    known = {*common["KVConnectorBase_V1"], *generation.required.get("KVConnectorBase_V1", {})}
    complaints += [f"{name[:-1]} is new, and a connector must have it" for name in hooks if _is_new(name, known)]
    return complaints


def _is_new(name: str, known: set[str]) -> bool:
    return name.endswith("!") and name[:-1] not in known


def _members(kind: type) -> Members:
    members: dict[str, Parameters] = {}
    for name in {*dir(kind), *getattr(kind, "__dataclass_fields__", ())}:
        value = inspect.getattr_static(kind, name, None)
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        members[name] = _parameters(function) if inspect.isfunction(function) else None
    for name in getattr(kind, "__abstractmethods__", ()):
        members[f"{name}!"] = None
    # What the constructor sets.
    code = getattr(inspect.getattr_static(kind, "__init__"), "__code__", None)
    if code is not None:
        members = {**dict.fromkeys(code.co_names), **members}
    return members


def _parameters(function: object) -> Parameters:
    parameters = list(inspect.signature(function).parameters.values())[1:]  # type: ignore[arg-type]
    return tuple(_signs.get(parameter.kind, "") + parameter.name for parameter in parameters)


def _shown(parameters: Parameters) -> str:
    return " (an attribute)" if parameters is None else f"({', '.join(parameters)})"
