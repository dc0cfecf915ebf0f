"""Writes down the interface of released vLLMs, for test_generations.py: `python record_releases.py 0.34.0 …`.

Adds to vllm_releases.jsonl what the connector's classes have in these releases, each as its difference from the one
before. The wheels (hundreds of MB) are not downloaded: pip says where they are, and a few files are read out of them.
"""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from reprise_vllm.generations.generation import places

RECORD = Path(__file__).with_name("vllm_releases.jsonl")
_piece_bytes = 1 << 16

#: Members by class: a method's parameters, or None for what is no method. Abstract ones stand again with a "!".
Surface = dict[str, dict[str, list[str] | None]]
#: {"version": …, "new": {class: {member: parameters}}, "gone": {class: [members]}}
Entry = dict[str, Any]


def recorded_entries() -> list[Entry]:
    """One line each, in the order of the releases."""
    return [json.loads(line) for line in RECORD.read_text().splitlines()]


def replay(entries: list[Entry]) -> dict[str, Surface]:
    """What each recorded release has."""
    surfaces: dict[str, Surface] = {}
    now: Surface = {}
    for entry in entries:
        now = {name: dict(members) for name, members in now.items()}
        for name, members in entry["gone"].items():
            for member in members:
                del now[name][member]
        for name, members in entry["new"].items():
            now.setdefault(name, {}).update(members)
        surfaces[entry["version"]] = now
    return surfaces


def _entry(version: str, before: Surface, after: Surface) -> Entry:
    new: Surface = {}
    gone: dict[str, list[str]] = {}
    for name, members in after.items():
        theirs = before.get(name, {})
        changed = {key: value for key, value in members.items() if key not in theirs or theirs[key] != value}
        left = [key for key in theirs if key not in members]
        if changed:
            new[name] = changed
        if left:
            gone[name] = left
    return {"version": version, "new": new, "gone": gone}


def surface_in(wheel: zipfile.ZipFile) -> Surface:
    found: Surface = {}
    for module in sorted(set(places.values())):
        tree = ast.parse(wheel.read(module.replace(".", "/") + ".py"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and places.get(node.name) == module:
                found[node.name] = _members(node)
    return found


def _members(kind: ast.ClassDef) -> dict[str, list[str] | None]:
    members: dict[str, list[str] | None] = {}
    for node in kind.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            members[node.target.id] = None
        elif isinstance(node, ast.FunctionDef):
            decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
            if "overload" in decorators:
                continue
            is_attribute = bool(decorators & {"property", "cached_property"})
            members[node.name] = None if is_attribute else _parameters(node, "staticmethod" in decorators)
            if "abstractmethod" in decorators:
                members[f"{node.name}!"] = None
            if node.name == "__init__":
                members.update({name: None for name in _assigned(node) if name not in members})
    return members


def _parameters(function: ast.FunctionDef, is_static: bool) -> list[str]:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)][0 if is_static else 1 :]
    names += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    names += [argument.arg for argument in arguments.kwonlyargs]
    return names + ([f"**{arguments.kwarg.arg}"] if arguments.kwarg else [])


def _assigned(constructor: ast.FunctionDef) -> list[str]:
    """Attributes of self that a constructor sets."""
    return [
        node.attr
        for node in ast.walk(constructor)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    ]


class _Remote(io.RawIOBase):
    """A file behind a URL, read piece by piece."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._at = 0
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as answer:
            self._bytes = int(answer.headers["Content-Length"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._bytes)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._bytes - self._at)
        if count <= 0:
            return 0
        asked = urllib.request.Request(self._url, headers={"Range": f"bytes={self._at}-{self._at + count - 1}"})
        with urllib.request.urlopen(asked) as answer:
            buffer[:count] = answer.read()
        self._at += count
        return count


def _wheel(version: str) -> zipfile.ZipFile:
    platforms = [f"manylinux_2_{n}_x86_64" for n in range(17, 45)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", "--ignore-installed"),
            *("--no-deps", "--only-binary", ":all:", "--target", "/nonexistent", "--python-version", "3.12"),
            *(part for platform in platforms for part in ("--platform", platform)),
            f"vllm=={version}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    url = json.loads(done.stdout)["install"][0]["download_info"]["url"]
    return zipfile.ZipFile(io.BufferedReader(_Remote(url), _piece_bytes))


def main() -> None:
    entries = recorded_entries() if RECORD.exists() else []
    for version in sys.argv[1:]:
        before = list(replay(entries).values())[-1] if entries else {}
        entries.append(_entry(version, before, surface_in(_wheel(version))))
        RECORD.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
        print(version)


if __name__ == "__main__":
    main()
