"""What every part of the comparison is: settings for the command line, engines that it needs, a measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from arms import Arms
from engine_settings import ARMS, EngineSettings
from report import Report


@dataclass(frozen=True)
class Part(ABC):
    """The fields of a part are its settings; in a command line `name:field=value:field=value`, lists with "+"."""

    #: It starts its engines itself, and is given none.
    starts_engines: ClassVar[bool] = False

    #: Seconds that it may take once its arms run.
    seconds: int = 200
    #: The model's shape; "": the run's.
    shape: str = ""
    arms: tuple[str, ...] = ARMS

    def engine(self, base: EngineSettings) -> EngineSettings:
        """What this part needs of the engines, starting from the run's settings."""
        return replace(base, shape=self.shape or base.shape)

    @abstractmethod
    def measure(self, arms: Arms, report: Report) -> None:
        """Asks the arms and writes what they answered into the report."""

    def running(self, arms: Arms) -> list[str]:
        return [name for name in arms.names if name in self.arms]

    def given(self, texts: dict[str, str]) -> Self:
        """This part with the fields that a command line gives. Raises ValueError for what it cannot have."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        values: dict[str, Any] = {}
        for name, text in texts.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no setting {name}; it has {', '.join(known)}")
            values[name] = _parsed(text, known[name])
        return replace(self, **values)


def _parsed(text: str, like: Any) -> Any:
    match like:
        case bool():
            if text not in ("true", "false"):
                raise ValueError(f"true or false was expected, not {text!r}")
            return text == "true"
        case tuple():
            return tuple(type(like[0])(item) for item in text.split("+"))
        case _:
            return type(like)(text)
