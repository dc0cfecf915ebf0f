"""The identity of LoRA adapters: what they do to the KV, since names, numbers and paths may be given twice.

vLLM loads an adapter once for each of its numbers (`lora_int_id`) and does not look at the files again, and its own
prefix cache tells adapters apart by name. So a number keeps the digest that its files had at its first request, and
goes without the cache as soon as they change: which of them vLLM works with can no longer be told. Digests are made in
the background; until one is known, requests of that adapter go without the cache.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

from reprise_engine.log import log
from reprise_vllm.identity import NotSupported, model_folder
from reprise_vllm.weights import file_identity, weight_files, weights_digest

_unusable = ""
_settings_file = "adapter_config.json"


class Adapters:
    """Called from the engine's thread only. `computed_in`: the dtype that vLLM loads adapters in."""

    def __init__(self, computed_in: str = "") -> None:
        self._computed_in = computed_in
        #: By `lora_int_id`.
        self._loaded: dict[int, _Adapter] = {}
        #: The numbers that a name was given to.
        self._named: dict[str, set[int]] = {}

    def identity(self, lora_request: Any) -> str | None:
        """What stands in the root for `lora_request`: "" for none. None: not known (yet)."""
        if lora_request is None:
            return ""
        number = int(lora_request.lora_int_id)
        adapter = self._loaded.get(number)
        if adapter is None:
            self._named.setdefault(str(lora_request.lora_name), set()).add(number)
            adapter = self._loaded[number] = _Adapter(lora_request, self._computed_in)
            threading.Thread(target=adapter.read, name="reprise-adapter", daemon=True).start()
        return adapter.identity(lora_request)

    def is_only_one(self, lora_request: Any) -> bool:
        """Whether all adapters of this name are the same. If not, vLLM's prefix cache may have served a request of one
        with another's KV, and what was computed on it is not to be stored.
        """
        if lora_request is None:
            return True
        numbers = self._named.get(str(lora_request.lora_name), set())
        return len({self._loaded[number].digest for number in numbers}) <= 1


class _Adapter:
    """One adapter as vLLM has loaded it."""

    def __init__(self, lora_request: Any, computed_in: str) -> None:
        self._path = str(lora_request.lora_path)
        self._read_as = f"{computed_in} {getattr(lora_request, 'is_3d_lora_weight', False)}"
        #: None: not known yet.
        self.digest: str | None = None
        self._folder = Path(self._path).expanduser()
        #: As vLLM finds them: it has not loaded them yet.
        self._files = _files_identity(self._folder) if self._folder.exists() else None
        if getattr(lora_request, "tensorizer_config_dict", None) is not None:
            self.digest = _unusable  # its weights lie elsewhere

    def read(self) -> None:
        """Makes the digest: minutes for a large adapter on a slow disk."""
        if self.digest is not None:
            return
        try:
            if self._files is None:
                self._folder = model_folder(self._path, None)
                self._files = _files_identity(self._folder)
            parts = (
                "reprise-adapter-1",
                weights_digest(self._folder),
                hashlib.sha256((self._folder / _settings_file).read_bytes()).hexdigest(),
                self._read_as,
            )
            if not self._is_unchanged():
                raise NotSupported("its files changed while vLLM loaded it")
            self.digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        except Exception as error:  # where an adapter lies is what a client or a plugin of vLLM says
            self.digest = _unusable
            log.warning("Reprise: requests of the adapter at %s are not cached: %s", self._path, error)

    def identity(self, lora_request: Any) -> str | None:
        if not self.digest:
            return None
        if self._path == str(lora_request.lora_path) and self._is_unchanged():
            return self.digest
        self.digest = _unusable
        log.warning(
            "Reprise: the files of the adapter at %s have changed since vLLM loaded them as number %d: its requests "
            "are no longer cached; load it as a new adapter, with another name",
            self._path,
            lora_request.lora_int_id,
        )
        return None

    def _is_unchanged(self) -> bool:
        return self._files is not None and _files_identity(self._folder) == self._files


def _files_identity(folder: Path) -> str | None:
    """None: there is nothing that could be read."""
    try:
        files = (folder / _settings_file, *weight_files(folder))
        return "\n".join(f"{file.name} {file_identity(file)}" for file in files)
    except OSError:
        return None
