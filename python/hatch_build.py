"""Puts the built command into a wheel: see build_wheel.py, which sets the two variables.

Without them the wheel is pure Python: client and connector, for use with a cache that is there already.
"""

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface[Any]):
    """Adds the folder REPRISE_BUNDLE as reprise/bundle and tags the wheel for REPRISE_PLATFORM."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it gathers files."""
        bundle = os.environ.get("REPRISE_BUNDLE")
        if self.target_name != "wheel" or bundle is None:
            return
        build_data["force_include"][bundle] = "reprise/bundle"
        build_data["tag"] = f"py3-none-{os.environ['REPRISE_PLATFORM']}"
        build_data["pure_python"] = False
