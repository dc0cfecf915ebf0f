"""The engine as a guest of the cache: how the scheduler's process finds out who it is, and reaches the cache.

    arrange (layouts of all ranks are known) ──► the weights' digest, in the background ──► links ──► SchedulerSide

Until all that is there, nothing hits and nothing is saved; vLLM serves as without us.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from reprise.errors import RepriseError
from reprise.link import CacheLink
from reprise.space import SpaceDescription
from reprise.start import start_cache
from reprise_vllm.adapters import Adapters
from reprise_vllm.counters import Counters
from reprise_vllm.generations.generation import Generation
from reprise_vllm.guard import log
from reprise_vllm.identity import NotSupported, WorkerLayout, describe_space, geometry_of
from reprise_vllm.jobs import Geometry
from reprise_vllm.options import Options
from reprise_vllm.pins import BlockPins
from reprise_vllm.rank_links import RankLinks
from reprise_vllm.same_process import worker_of
from reprise_vllm.scheduler_side import SchedulerSide
from reprise_vllm.tracked_request import Root

#: How long the engine's start waits for the weights' digest and for the cache.
_start_seconds = 2.0
_autostart_seconds = 20.0


class EngineGuest:
    def __init__(self, vllm_config: Any, kv_cache_config: Any, options: Options, generation: Generation) -> None:
        self.counters = Counters()
        #: There once the engine's identity is known.
        self.side: SchedulerSide | None = None
        #: There where vLLM lends us its block pool.
        self.pins: BlockPins | None = None
        self._vllm_config = vllm_config
        self._kv_cache_config = kv_cache_config
        self._options = options
        self._generation = generation
        self._arranged = False
        self._adapters = Adapters(_adapter_dtype(vllm_config))
        self._closed = False

    @property
    def socket_path(self) -> str:
        options = self._options
        return os.path.expanduser(options.socket or os.path.join(options.data_dir, "cache.sock"))

    def arrange(self, layouts: list[WorkerLayout]) -> None:
        """Called when every rank has told its layout; again does nothing. Returns soon, whatever the cache does."""
        if self._arranged:
            return
        self._arranged = True
        try:
            geometry = geometry_of(
                self._vllm_config, self._kv_cache_config, layouts, self._options.chunk_tokens, self._generation
            )
        except NotSupported as reason:
            log.warning("Reprise does nothing: %s", reason)
            return
        thread = threading.Thread(target=self._arrange, args=(geometry, layouts), name="reprise-start", daemon=True)
        thread.start()
        thread.join(_autostart_seconds if self._options.autostart else _start_seconds)
        if thread.is_alive():
            log.info("Reprise reads the weights once to know them; until then nothing is reused")

    def arrived(self, request: Any) -> None:
        side, how = self.side, self._admit(request)
        if side is not None and how is not None:
            root, may_read, may_save = how
            side.arrived(request, root=root, may_read=may_read, may_save=may_save)

    def match(self, request: Any, computed: int) -> tuple[int, bool]:
        side = self.side
        if side is None:
            return 0, False
        how = self._admit(request)
        if how is None:
            self.counters.add("requests_skipped")
            return 0, False
        root, may_read, may_save = how
        return side.match(request, computed, root=root, may_read=may_read, may_save=may_save)

    def _admit(self, request: Any) -> tuple[Root, bool, bool] | None:
        """Whose text a request has, and whether it may read and save. None: it goes without the cache."""
        adapter = self._adapters.identity(request.lora_request)
        if adapter is None or request.mm_features or request.prompt_embeds is not None or request.pooling_params:
            return None
        wishes = (request.kv_transfer_params or {}).get("reprise", {})
        may_read = wishes.get("read", True) is not False and not request.skip_reading_prefix_cache
        may_save = wishes.get("save", True) is not False and self._adapters.is_only_one(request.lora_request)
        return Root(request.cache_salt or "", adapter), may_read, may_save

    def close(self) -> None:
        self._closed = True
        if self.side is not None:
            self.side.close()

    def _arrange(self, geometry: Geometry, layouts: list[WorkerLayout]) -> None:
        try:
            space = describe_space(self._vllm_config, self._kv_cache_config, geometry, layouts)
            self._autostart()
            side = self._side(space, geometry)
        except (NotSupported, OSError) as reason:
            log.warning("Reprise does nothing: %s", reason)
            return
        except Exception:
            log.exception("Reprise does nothing: its start has failed")
            return
        if not self._closed:
            self.side = side

    def _autostart(self) -> None:
        options = self._options
        if not options.autostart:
            return
        try:
            started = start_cache(
                socket_path=self.socket_path,
                data_dir=os.path.expanduser(options.data_dir),
                memory=options.memory,
                disk=options.disk,
                timeout=_autostart_seconds,
            )
        except RepriseError as error:
            log.warning("Reprise: the cache could not be started: %s", error)
            return
        if started.process_id is not None:
            log.info("Reprise: started the cache, process %d", started.process_id)

    def _side(self, space: SpaceDescription, geometry: Geometry) -> SchedulerSide:
        links = RankLinks(
            [
                CacheLink(
                    socket_path=self.socket_path, space=space, rank=rank, slot_bytes=geometry.slot_bytes, pins_pool=True
                )
                for rank in range(geometry.ranks)
            ]
        )
        if links.connect(_start_seconds):
            log.info(
                "Reprise: space %s, chunks of %d tokens (%d bytes a rank), pool %s",
                links.links[0].space_id[:12],
                geometry.chunk_tokens,
                geometry.slot_bytes,
                links.links[0].pool_path,
            )
        else:
            log.warning(
                "Reprise: no cache on %s yet (%s); nothing is reused until there is one: start `reprise cache`, or set "
                '"autostart": true',
                self.socket_path,
                links.links[0].last_error,
            )
        engine_id = str(self._vllm_config.kv_transfer_config.engine_id)
        return SchedulerSide(
            links,
            geometry,
            self._options,
            self.counters,
            prefetcher=lambda: worker_of(engine_id),
            pins=lambda: self.pins,
        )


def _adapter_dtype(vllm_config: Any) -> str:
    return str(getattr(getattr(vllm_config, "lora_config", None), "lora_dtype", "")).removeprefix("torch.")
