"""What every arm of a comparison has in common, and how each arm's vLLM is told of its cache.

none      vLLM alone: its own prefix cache in the GPU's memory
noop      a connector that does nothing: what vLLM's plumbing for connectors costs by itself
native    vLLM's own offload to the host's memory
lmcache   LMCache inside the engine's process; with a disk, its local disk
lmcache-fs  the same with LMCache's "fs" remote store as its disk, whose files are found again after a restart
reprise   this repository's connector, with `reprise cache` beside it
reprise-again  a second engine on the cache of `reprise`
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

ARMS = ("none", "noop", "native", "lmcache", "reprise")
#: Arms that keep KV in the host's memory.
HOST_ARMS = ("native", "lmcache", "lmcache-fs", "reprise")
_here = Path(__file__).resolve().parent
_dtype_bytes = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class EngineSettings:
    """The same for every arm."""

    #: A folder of `shapes`, or the path of a model's folder.
    shape: str = "llama-8b"
    #: Longest text of a request, answer included.
    context_tokens: int = 16_400
    #: What the GPU's KV cache holds.
    kv_tokens: int = 80_000
    #: Requests that run at a time.
    sequences: int = 8
    #: Memory of the host that each arm may fill with KV.
    host_gib: int = 24
    #: Disk that each arm may fill with KV; 0: no disk.
    disk_gib: int = 0
    eager: bool = True
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    #: The attention backend on a GPU.
    backend: str = "FLASH_ATTN"
    kv_dtype: str = "auto"
    #: LoRA adapters that may be in a batch; 0: no LoRA.
    adapters: int = 0
    #: None: as vLLM chooses.
    async_scheduling: bool | None = None
    #: Batch sizes for which CUDA graphs are captured; empty: as vLLM chooses.
    graph_sizes: tuple[int, ...] = ()
    #: "dummy": random weights of the shape; "auto": the weights in the folder.
    load_format: str = "dummy"

    @cached_property
    def model(self) -> Path:
        inside = _here / "shapes" / self.shape
        return inside if inside.exists() else Path(self.shape).expanduser().resolve()

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.model / "config.json").read_text())

    @property
    def token_bytes(self) -> int:
        """KV of one token, all ranks."""
        config = self.config
        element = _dtype_bytes[config.get("torch_dtype") or config.get("dtype") or "bfloat16"]
        if self.kv_dtype.startswith("fp8"):
            element = 1
        if "kv_lora_rank" in config:  # one latent vector for all heads
            return config["num_hidden_layers"] * (config["kv_lora_rank"] + config["qk_rope_head_dim"]) * element
        head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head * element

    @property
    def host_tokens(self) -> int:
        """Tokens whose KV fits the host's memory of one arm."""
        return self.host_gib * 2**30 // self.token_bytes

    def joined(self, other: EngineSettings) -> EngineSettings | None:
        """One engine that can do the work of both; None when there is none."""
        sizes = ("context_tokens", "kv_tokens", "sequences", "host_gib")
        largest = {name: max(getattr(self, name), getattr(other, name)) for name in sizes}
        mine, theirs = replace(self, **largest), replace(other, **largest)
        return mine if asdict(mine) == asdict(theirs) else None


def engine_arguments(arm: str, settings: EngineSettings, *, cuda: bool, socket: str) -> dict[str, Any]:
    """Keyword arguments of `vllm.LLM` for this arm; `kv_transfer_config` as a plain dict."""
    given: dict[str, Any] = {
        "model": str(settings.model),
        "load_format": settings.load_format,
        "enforce_eager": settings.eager,
        "max_model_len": settings.context_tokens,
        "max_num_seqs": settings.sequences,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        # An exact size, so that several engines fit one GPU and start at the same time: the share of the GPU's memory
        # is then only what must be free at the start.
        "kv_cache_memory_bytes": (settings.kv_tokens + 256)
        * settings.token_bytes
        // (settings.tensor_parallel * settings.pipeline_parallel),
        "gpu_memory_utilization": 0.05,
        "tensor_parallel_size": settings.tensor_parallel,
        "pipeline_parallel_size": settings.pipeline_parallel,
        "kv_cache_dtype": settings.kv_dtype,
    }
    if cuda:
        given["attention_config"] = {"backend": settings.backend}
    if settings.adapters:
        given |= {"enable_lora": True, "max_loras": settings.adapters, "max_lora_rank": 8}
    if settings.async_scheduling is not None:
        given["async_scheduling"] = settings.async_scheduling
    if settings.graph_sizes and not settings.eager:
        given["compilation_config"] = {"cudagraph_capture_sizes": list(settings.graph_sizes)}
    match arm:
        case "native":
            given |= {"kv_offloading_size": settings.host_gib, "kv_offloading_backend": "native"}
        case "noop":
            given["kv_transfer_config"] = {
                "kv_connector": "NoopConnector",
                "kv_connector_module_path": "noop_connector",
                "kv_role": "kv_both",
            }
        case "lmcache" | "lmcache-fs":
            given["kv_transfer_config"] = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
        case "reprise" | "reprise-again":
            given["kv_transfer_config"] = {
                "kv_connector": "RepriseConnector",
                "kv_connector_module_path": "reprise_vllm",
                "kv_role": "kv_both",
                "kv_load_failure_policy": "recompute",
                "kv_connector_extra_config": {"socket": socket},
            }
    return given


def arm_environment(arm: str, settings: EngineSettings, disk: Path) -> dict[str, str]:
    """What the process of this arm finds in its environment beside what the driver has."""
    environment = {
        "HF_HUB_OFFLINE": "1",
        "PYTHONHASHSEED": "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # NVLink multicast stays unused: some hosts forbid it.
        "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    }
    if arm.startswith("lmcache"):
        environment |= {
            "LMCACHE_CHUNK_SIZE": "256",
            "LMCACHE_LOCAL_CPU": "True",
            "LMCACHE_MAX_LOCAL_CPU_SIZE": str(settings.host_gib / settings.tensor_parallel),
        }
        if settings.disk_gib > 0 and arm == "lmcache":
            environment |= {
                "LMCACHE_LOCAL_DISK": f"file://{disk}/",
                "LMCACHE_MAX_LOCAL_DISK_SIZE": str(settings.disk_gib),
            }
        if settings.disk_gib > 0 and arm == "lmcache-fs":
            environment |= {"LMCACHE_REMOTE_URL": f"fs://localhost:0{disk}/", "LMCACHE_REMOTE_SERDE": "naive"}
    return environment
