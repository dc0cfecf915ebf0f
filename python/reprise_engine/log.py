"""The log of both halves: a child of the host's logger, so that it shows our lines among its own."""

from __future__ import annotations

import logging

#: Of Reprise alone until a host has been named.
log = logging.LoggerAdapter(logging.getLogger("reprise"))


def log_under(host: str) -> None:
    """From here on our lines are children of the host's logger: they come and go with its level and handlers."""
    log.logger = logging.getLogger(f"{host}.reprise")
