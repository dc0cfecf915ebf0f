"""The engine as a guest of the cache: how the scheduler's process finds out who it is, and reaches the cache.

    arrange (layouts of all ranks are known) ──► the weights' digest, in the background ──► links ──► SchedulerSide

Until all that is there, nothing hits and nothing is saved; vLLM serves as without us.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from reprise.errors import RepriseError
from reprise.keys import is_utf8
from reprise.link import CacheLink
from reprise.space import SpaceDescription
from reprise.start import start_cache
from reprise_engine.counters import Counters
from reprise_engine.jobs import Geometry
from reprise_engine.log import log
from reprise_engine.options import Options
from reprise_engine.plan import WorkerLayout
from reprise_engine.same_process import worker_of
from reprise_engine.scheduler.rank_links import RankLinks
from reprise_engine.scheduler.scheduler_side import SchedulerSide
from reprise_vllm.admission import Admission
from reprise_vllm.block_pool import BlockPoolRefs
from reprise_vllm.generations.generation import Generation
from reprise_vllm.identity import NotSupported, describe_space, geometry_of

#: How long the engine's start waits for the weights' digest and for the cache.
_start_seconds = 2.0
_autostart_seconds = 20.0


class EngineGuest:
    """`beside_others`: this engine has other connectors, too."""

    def __init__(
        self,
        vllm_config: Any,
        kv_cache_config: Any,
        options: Options,
        generation: Generation,
        *,
        beside_others: bool = False,
    ) -> None:
        self.counters = Counters()
        #: There once the engine's identity is known.
        self.side: SchedulerSide | None = None
        #: There where vLLM lends us its block pool.
        self.block_refs: BlockPoolRefs | None = None
        self._vllm_config = vllm_config
        self._kv_cache_config = kv_cache_config
        self._options = options
        self._generation = generation
        self._arranged = False
        self._layouts: dict[int, WorkerLayout] = {}
        role = getattr(getattr(vllm_config, "kv_transfer_config", None), "kv_role", "kv_both")
        self._admission = Admission(
            self.counters,
            _adapter_dtype(vllm_config),
            may_save=role != "kv_consumer",
            beside_others=beside_others,
        )
        self._closed = False

    def told_in_a_step(self, layouts: Mapping[int, WorkerLayout]) -> None:
        """Where vLLM does not pass the ranks' layouts on at start, they come with the report of a step."""
        self._layouts.update(layouts)
        if len(self._layouts) == self._vllm_config.parallel_config.world_size:
            self.arrange([self._layouts[rank] for rank in sorted(self._layouts)], wait=False)

    def arrange(self, layouts: list[WorkerLayout], *, wait: bool = True) -> None:
        """Called when every rank has told its layout; again does nothing. Returns soon, whatever the cache does, and
        at once unless it may `wait`.
        """
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
        if wait:
            thread.join(_autostart_seconds if self._options.autostart else _start_seconds)
        if wait and thread.is_alive():
            log.info("Reprise reads the weights once to know them; until then nothing is reused")

    def arrived(self, request: Any) -> None:
        side, how = self.side, self._admission.of(request)
        if side is not None and how is not None and how.promised_until is None:
            side.arrived(request, root=how.root, may_read=how.may_read, may_save=how.may_save, awaited=how.awaited)

    def match(self, request: Any, computed: int) -> tuple[int | None, bool]:
        side = self.side
        if side is None:
            return 0, False
        how = self._admission.of(request)
        if how is None:
            self.counters.add("requests_skipped")
            return 0, False
        return side.match(
            request,
            computed,
            root=how.root,
            may_read=how.may_read,
            may_save=how.may_save,
            awaited=how.awaited,
            promised_until=how.promised_until,
        )

    def finished(self, request: Any, blocks: Sequence[int]) -> bool:
        """True: its blocks are needed until the workers report it sent."""
        self._admission.ended(request)
        return self.side is not None and self.side.finished(request, blocks)

    def set_aside(self, request: Any) -> None:
        """Something has raised in a hook of this request: it goes on without the cache."""
        self._admission.set_aside(request)
        if self.side is not None:
            self.side.set_aside(request.request_id)

    def reset(self) -> bool:
        """The engine's weights are others now. From here on its texts are those of a generation of its own: nothing
        that was stored before is loaded, whatever happens to links and caches, and nothing that was computed before is
        stored. False: a load was under way, or vLLM has refused to empty its own cache; to be asked again.
        """
        self._admission.generation = f"generation {secrets.token_hex(16)} "
        if self.side is None:
            return True
        pool_is_empty = self.block_refs is not None and self.block_refs.pool_is_empty
        try:
            return self.side.reset(pool_is_empty=pool_is_empty)
        except Exception:
            self.side = None  # what it would do from here on can no longer be told
            raise

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
                socket_path=self._options.socket_path,
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
                    socket_path=self._options.socket_path,
                    space=space,
                    rank=rank,
                    slot_bytes=[geometry.slot_bytes],
                    registers_pool=True,
                    model=_model_name(self._vllm_config),
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
                self._options.socket_path,
                links.links[0].last_error,
            )
        engine_id = str(self._vllm_config.kv_transfer_config.engine_id)
        return SchedulerSide(
            links,
            geometry,
            self._options,
            self.counters,
            prefetcher=lambda: worker_of(engine_id, self._options.socket_path),
            block_refs=lambda: self.block_refs,
        )


def _adapter_dtype(vllm_config: Any) -> str:
    return str(getattr(getattr(vllm_config, "lora_config", None), "lora_dtype", "")).removeprefix("torch.")


def _model_name(vllm_config: Any) -> str:
    """What people call the model, for lists of what is stored; "" where vLLM has no such name. Identifies nothing."""
    name = getattr(vllm_config.model_config, "served_model_name", None)
    return name[:100] if isinstance(name, str) and is_utf8(name) else ""
