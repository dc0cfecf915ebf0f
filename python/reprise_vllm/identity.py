"""Under which identity an engine's KV is stored: everything that could change a byte of it.

Nothing is taken from the environment. A setting that changes can only miss.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from reprise.space import SpaceDescription, double_bits
from reprise_engine.jobs import Geometry
from reprise_engine.plan import WorkerLayout
from reprise_vllm.generations.generation import Generation
from reprise_vllm.weights import changed_since, process_started, weights_digest

#: Changes whenever the bytes of a payload change their meaning (layout.py).
PAYLOAD_FORMAT = 1

_chunk_bytes = 16 * 1024 * 1024
_largest_chunk_tokens = 1024
#: Keys of a model's configuration that say nothing about its numbers.
_names_only = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype", "use_cache")


class NotSupported(Exception):
    """This engine's KV cannot be stored. The message says why."""


def geometry_of(
    vllm_config: Any, kv_cache_config: Any, layouts: list[WorkerLayout], chunk_tokens: int, generation: Generation
) -> Geometry:
    """Raises NotSupported. `chunk_tokens`: 0 to choose."""
    spec = _only_spec(kv_cache_config)
    block_tokens = int(spec.block_size)
    parallel = vllm_config.parallel_config
    for name in ("decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            raise NotSupported(f"{name} > 1: a token's KV is spread over ranks in a way that is not supported")
    if vllm_config.model_config.enable_sleep_mode:
        raise NotSupported(
            "sleep mode: an engine that falls asleep gives the memory of its KV cache away, and nothing tells a "
            "connector to end its copies before"
        )
    if getattr(vllm_config.cache_config, "calculate_kv_scales", False):
        raise NotSupported(
            "calculate_kv_scales: the scales come from the first prompt of each engine, so that no other could read "
            "its KV; take scales from the checkpoint, or none"
        )
    chunked = getattr(vllm_config.scheduler_config, "enable_chunked_prefill", True)
    if not chunked and not getattr(vllm_config.cache_config, "enable_prefix_caching", True):
        raise NotSupported(
            "prefix caching and chunked prefill are both off, as vLLM has it for attention that cannot go on from KV "
            "that is there (MLA on a CPU without AMX): turn one of them on, if this model can"
        )
    reason = generation.why_not(parallel)
    if reason is not None:
        raise NotSupported(reason)
    block_bytes = max(layout.block_bytes for layout in layouts)
    if chunk_tokens == 0:
        chunk_tokens = block_tokens
        while chunk_tokens < _largest_chunk_tokens and chunk_tokens // block_tokens * 2 * block_bytes <= _chunk_bytes:
            chunk_tokens *= 2
    if chunk_tokens % block_tokens != 0:
        raise NotSupported(f"chunk_tokens {chunk_tokens} is not a multiple of vLLM's block size {block_tokens}")
    for layout in layouts:
        payload = chunk_tokens // block_tokens * layout.block_bytes
        if payload > layout.largest_payload_bytes:
            raise NotSupported(
                f"a chunk of {chunk_tokens} tokens takes {payload} bytes, and copies pass through places of "
                f"{layout.largest_payload_bytes}: raise `staging` (and leave that room on the GPU), or lower "
                "`chunk_tokens`"
            )
    hash_tokens = generation.hash_tokens(vllm_config.cache_config, block_tokens)
    return Geometry(block_tokens, chunk_tokens, block_bytes, len(layouts), hash_tokens)


def describe_space(
    vllm_config: Any, kv_cache_config: Any, geometry: Geometry, layouts: list[WorkerLayout]
) -> SpaceDescription:
    """The space of this engine. Reads the weights when they are not known yet: minutes for a large model.

    Raises NotSupported, and OSError when the weights cannot be read.
    """
    spec = _only_spec(kv_cache_config)
    model = vllm_config.model_config
    parallel = vllm_config.parallel_config
    config = dict(model.hf_text_config.to_dict())
    rope = {key: value for key, value in config.items() if "rope" in key or "rotary" in key or "position" in key}
    rest = {key: value for key, value in config.items() if key not in rope and key not in _names_only}
    element = f"{str(spec.dtype).removeprefix('torch.')};{vllm_config.cache_config.cache_dtype}"
    attention = {
        "kind": type(spec).__name__,
        "window": getattr(spec, "sliding_window", None),
        "chunk": getattr(spec, "attention_chunk_size", None),
        "computed in": str(model.dtype),
        "quantization": model.quantization,
        "model": hashlib.sha256(_canonical(rest).encode()).hexdigest(),
    }
    signatures = sorted({layout.signature for layout in layouts})
    return SpaceDescription(
        engine="vllm",
        payload_format=PAYLOAD_FORMAT,
        weights=_weights(vllm_config, config),
        key_type=element,
        value_type=element,
        layers=int(config.get("num_hidden_layers", 0)),
        key_value_heads=int(getattr(spec, "num_kv_heads", 1)),
        key_size=int(getattr(spec, "head_size", 0)),
        value_size=int(getattr(spec, "head_size_v", 0) or getattr(spec, "head_size", 0)),
        layout=f"tp{parallel.tensor_parallel_size} pp{parallel.pipeline_parallel_size} {' | '.join(signatures)}",
        attention=_canonical(attention),
        rope=_canonical(rope),
        tensor_parallel=geometry.ranks,
        chunk_tokens=geometry.chunk_tokens,
    )


def model_folder(model: str, revision: str | None) -> Path:
    """Where the weights lie: the folder itself, or its snapshot in the hub's cache. Raises NotSupported."""
    path = Path(model).expanduser()
    if path.exists():
        return path
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except Exception as error:
        raise NotSupported(f"the weights of {model} were not found on this machine: {error}") from error


def _weights(vllm_config: Any, config: dict[str, Any]) -> str:
    model = vllm_config.model_config
    if vllm_config.load_config.load_format == "dummy":
        return f"dummy;{model.seed};{hashlib.sha256(_canonical(config).encode()).hexdigest()}"
    folder = model_folder(str(model.model), model.revision)
    # What the hub's cache holds has names that say its content, and may be fetched by vLLM as it starts.
    is_hub = not Path(str(model.model)).expanduser().exists()
    changed = None if is_hub else changed_since(folder, process_started())
    if changed is not None:
        raise NotSupported(
            f"{changed} was put there while vLLM started, which may have loaded the weights before or after that; "
            "start vLLM again"
        )
    return weights_digest(folder)


def _only_spec(kv_cache_config: Any) -> Any:
    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1:
        raise NotSupported(f"the model has {len(groups)} kinds of KV cache (hybrid models are not supported yet)")
    spec = groups[0].kv_cache_spec
    inner = getattr(spec, "kv_cache_specs", None)
    if inner:  # layers of one kind that differ in size
        spec = next(iter(inner.values()))
    if not hasattr(spec, "dtype") or "Mamba" in type(spec).__name__:
        raise NotSupported(f"KV of kind {type(spec).__name__} is not supported")
    return spec


def _canonical(value: Any) -> str:
    """JSON with sorted keys, in which a float stands as the bits of an IEEE double."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): plain(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [plain(inner) for inner in item]
        if isinstance(item, float):
            return f"f64:{double_bits(item)}"
        return item if isinstance(item, int | str | bool) or item is None else str(item)

    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
