"""The identity of LoRA adapters: names may be given twice, so their weights are digested.

Digests are made in the background; until one is known, requests of that adapter go without the cache.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from reprise_vllm.guard import log
from reprise_vllm.weights import weights_digest

_unusable = ""


class AdapterDigests:
    def __init__(self) -> None:
        self._digests: dict[str, str] = {}
        self._under_way: set[str] = set()

    def identity(self, lora_request: Any) -> str | None:
        """What stands in the root for `lora_request`: "" for none. None: not known (yet)."""
        if lora_request is None:
            return ""
        path = str(lora_request.lora_path)
        digest = self._digests.get(path)
        if digest is None and path not in self._under_way:
            self._under_way.add(path)
            threading.Thread(target=self._digest, args=(path,), name="reprise-adapter", daemon=True).start()
        return digest or None

    def _digest(self, path: str) -> None:
        try:
            self._digests[path] = weights_digest(Path(path).expanduser())
        except OSError as error:
            self._digests[path] = _unusable
            log.warning("Reprise: requests of the adapter at %s are not cached: %s", path, error)
