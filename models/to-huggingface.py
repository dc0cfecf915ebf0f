"""to-huggingface.py MODEL.gguf OUT: a Llama GGUF as a Hugging Face folder, for vLLM and transformers.

Weights are dequantized to float32, so that both sides compute with the same numbers. Needs numpy, gguf, safetensors
and tokenizers. Made for reprise-22m-q8_0.gguf; takes any plain Llama that has a byte-level "qwen2" tokenizer.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
IN_A_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def main(source, out):
    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    expected = ("llama", "gpt2", "qwen2")
    found = tuple(fields.get(f) for f in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre"))
    if found != expected:
        sys.exit(f"{source} has (architecture, tokenizer, pre-tokenizer) {found}; this script converts {expected} only")

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tensors = dict(weights(reader, fields))
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer(fields).save(str(out / "tokenizer.json"))
    write(out / "config.json", config(fields, tied="lm_head.weight" not in tensors))
    write(out / "generation_config.json", generation_config(fields))
    write(out / "tokenizer_config.json", tokenizer_config(fields))


def weights(reader, fields):
    """(Hugging Face's name, float32 values) of every tensor."""
    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    whole = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name = tensor.name.removesuffix(".weight")
        if name in whole:
            yield f"{whole[name]}.weight", values
            continue
        _, layer, part = name.split(".")
        if part in heads:
            values = halves(values, heads[part])
        yield f"model.layers.{layer}.{IN_A_BLOCK[part]}.weight", values


def halves(matrix, heads):
    """Undoes the GGUF's order of rows: llama.cpp rotates neighbouring rows of a head, Hugging Face its two halves."""
    rows, columns = matrix.shape
    pairs = matrix.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def tokenizer(fields):
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    made.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True) if kind == 3]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return made


def config(fields, tied):
    theta = float(fields["llama.rope.freq_base"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "torch_dtype": "float32",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": int(fields["llama.embedding_length"]),
        "intermediate_size": int(fields["llama.feed_forward_length"]),
        "num_hidden_layers": int(fields["llama.block_count"]),
        "num_attention_heads": int(fields["llama.attention.head_count"]),
        "num_key_value_heads": int(fields["llama.attention.head_count_kv"]),
        "head_dim": int(fields["llama.attention.key_length"]),
        "max_position_embeddings": int(fields["llama.context_length"]),
        "rms_norm_eps": round(float(fields["llama.attention.layer_norm_rms_epsilon"]), 10),
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": int(fields["tokenizer.ggml.eos_token_id"]),
        "pad_token_id": int(fields["tokenizer.ggml.padding_token_id"]),
    }


def generation_config(fields):
    """Greedy, and ending where llama.cpp ends: at the EOS token, and at <|endoftext|>, which it knows by name."""
    ends = [int(fields["tokenizer.ggml.eos_token_id"])]
    if "<|endoftext|>" in fields["tokenizer.ggml.tokens"]:
        ends.append(fields["tokenizer.ggml.tokens"].index("<|endoftext|>"))
    return {
        "do_sample": False,
        "eos_token_id": ends,
        "pad_token_id": int(fields["tokenizer.ggml.padding_token_id"]),
    }


def tokenizer_config(fields):
    tokens = fields["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": int(fields["llama.context_length"]),
        "clean_up_tokenization_spaces": False,
        "bos_token": None,
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "chat_template": fields["tokenizer.chat_template"],
    }


def write(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
