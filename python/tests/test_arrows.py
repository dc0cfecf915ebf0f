"""Who may import whom, types included: a package that knows no engine must never come to know one, and nothing is in a
circle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[1]
#: What each package or room must not import.
FORBIDDEN: Mapping[str, tuple[str, ...]] = {
    "reprise": ("reprise_engine", "reprise_vllm", "vllm", "torch.cuda", "triton"),
    "reprise_engine": ("reprise_vllm", "vllm"),
    "reprise_mooncake": ("reprise", "reprise_engine", "reprise_vllm", "vllm", "torch"),
    "reprise_engine.scheduler": ("reprise_engine.worker", "reprise_engine.copy", "torch", "triton"),
    "reprise_engine.copy": ("reprise_engine.worker", "reprise_engine.scheduler"),
    "reprise_engine.worker": ("reprise_engine.scheduler",),
}


def imports_of(source: str) -> Iterator[str]:
    """Every name that is imported anywhere in the source: `from a import b` is `a.b`, be it a module or not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(file: Path) -> str:
    """As others import it: tests and benches lie on the path themselves."""
    root = next((root for root in (PYTHON / "tests", PYTHON / "bench") if file.is_relative_to(root)), PYTHON)
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


FOLDERS = ("reprise", "reprise_engine", "reprise_mooncake", "reprise_vllm", "tests", "bench")
FILES = [file for folder in FOLDERS for file in (PYTHON / folder).rglob("*.py")]
IMPORTS = {name_of(file): set(imports_of(file.read_text())) for file in FILES}


def circle_in(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty when there is none."""
    over: set[str] = set()
    # A name that is no module is one within the module before its last dot.
    arrows = {
        name: {other if other in imports else other.rpartition(".")[0] for other in theirs} & imports.keys()
        for name, theirs in imports.items()
    }

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in over:
            return []
        for target in sorted(arrows[name]):
            if circle := walk(target, [*path, name]):
                return circle
        over.add(name)
        return []

    return next((circle for name in arrows if (circle := walk(name, []))), [])


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_arrow_points_up(package: str) -> None:
    ours = {name: names for name, names in IMPORTS.items() if is_within(name, package)}
    assert ours, "the package is there"
    wrong = [
        f"{name} imports {imported}"
        for name, names in ours.items()
        for imported in sorted(names)
        if any(is_within(imported, forbidden) for forbidden in FORBIDDEN[package])
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle_in(IMPORTS) == []


def test_a_circle_of_types_is_seen() -> None:
    sources = {
        "a": "from b import B",
        "b": "import c",
        "c": "if TYPE_CHECKING:\n    from a import A",
    }
    assert circle_in({name: set(imports_of(source)) for name, source in sources.items()}) == ["a", "b", "c", "a"]
