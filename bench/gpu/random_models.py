"""Models and LoRA adapters with random weights, written as vLLM reads them: for comparing answers, not times.

vLLM's own dummy weights are so small that every text has the same answer. Here queries and keys are drawn large, so
that attention picks single tokens and an answer depends on the KV of all layers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

_attention_gain = 3.0
_adapter_rank = 8


def write_model(folder: Path, config: dict[str, Any], tokenizer: Path) -> Path:
    """A Llama, or a model with latent attention and no experts (DeepSeek-V2), of the shape that `config` says.
    `tokenizer`: a model's folder to take the tokenizer from.
    """
    hidden, inner, generator = config["hidden_size"], config["intermediate_size"], torch.Generator().manual_seed(1)
    dtype = getattr(torch, config["torch_dtype"])

    def matrix(rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        drawn: torch.Tensor = torch.randn(rows, columns, generator=generator).mul_(gain / columns**0.5)
        return drawn.to(dtype)

    attention, values = _attention_shapes(config)
    weights = {
        "model.embed_tokens.weight": matrix(config["vocab_size"], hidden, hidden**0.5),
        "model.norm.weight": torch.ones(hidden, dtype=dtype),
        "lm_head.weight": matrix(config["vocab_size"], hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        place = f"model.layers.{layer}"
        for name, (rows, columns) in attention.items():
            gain = 1.0 if name == "v_proj" else _attention_gain
            weights[f"{place}.self_attn.{name}.weight"] = matrix(rows, columns, gain)
        weights[f"{place}.self_attn.o_proj.weight"] = matrix(hidden, values)
        if "kv_lora_rank" in config:
            weights[f"{place}.self_attn.kv_a_layernorm.weight"] = torch.ones(config["kv_lora_rank"], dtype=dtype)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{place}.{name}.weight"] = torch.ones(hidden, dtype=dtype)
        for name in ("gate_proj", "up_proj"):
            weights[f"{place}.mlp.{name}.weight"] = matrix(inner, hidden)
        weights[f"{place}.mlp.down_proj.weight"] = matrix(hidden, inner)
    folder.mkdir(parents=True)
    save_file(weights, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder)
    return folder


def write_adapter(folder: Path, seed: int, model: Path) -> Path:
    """A LoRA adapter for the queries and values of a Llama, strong enough to change every answer."""
    config = json.loads((model / "config.json").read_text())
    shapes, _ = _attention_shapes(config)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        for name in ("q_proj", "v_proj"):
            rows, columns = shapes[name]
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{place}.lora_A.weight"] = torch.randn(_adapter_rank, columns, generator=generator) * 0.04
            weights[f"{place}.lora_B.weight"] = torch.randn(rows, _adapter_rank, generator=generator) * 0.04
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, str(folder / "adapter_model.safetensors"))
    about = {"peft_type": "LORA", "r": _adapter_rank, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**about, "bias": "none"}))
    return folder


def _attention_shapes(config: dict[str, Any]) -> tuple[dict[str, tuple[int, int]], int]:
    """Rows and columns of what attention reads with, and the columns of what it writes with."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if "kv_lora_rank" in config:
        latent, position, plain, value = (
            config[name] for name in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
        )
        shapes = {
            "q_proj": (heads * (plain + position), hidden),
            "kv_a_proj_with_mqa": (latent + position, hidden),
            "kv_b_proj": (heads * (plain + value), latent),
        }
        return shapes, heads * value
    keys = config["num_key_value_heads"] * config["head_dim"]
    return {"q_proj": (heads * config["head_dim"], hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden)}, (
        heads * config["head_dim"]
    )
