"""
A Llama of random weights in f16 as GGUF: 3 billion parameters, and a vocabulary of bytes and the words w259 to w31999.

    python3 bench/gpu/embedded_model.py FILE.gguf

Needs PyTorch and the package `gguf`. Times do not depend on what the weights are.
"""

from __future__ import annotations

import sys

import gguf
import numpy as np
import torch

LAYERS = 28
WIDTH = 3072
FEED_FORWARD = 8192
HEADS = 24
KEY_VALUE_HEADS = 8
VOCABULARY = 32000
CONTEXT = 65536
FIRST_WORD = 259


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Three marks, the 256 bytes, and words."""
    marks = [b"<unk>", b"<s>", b"</s>"]
    single = [f"<0x{byte:02X}>".encode() for byte in range(256)]
    words = [f"\u2581w{i}".encode() for i in range(FIRST_WORD, VOCABULARY)]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * len(single) + [gguf.TokenType.NORMAL] * len(words)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(marks + single + words)
    writer.add_token_scores([-float(i) for i in range(VOCABULARY)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def main() -> None:
    """Writes the file."""
    writer = gguf.GGUFWriter(sys.argv[1], "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(500_000.0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    add_vocabulary(writer)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device=device).manual_seed(0)

    def matrix(name: str, rows: int, columns: int, deviation: float | None = None) -> None:
        values = torch.randn((rows, columns), device=device, generator=generator)
        scaled = values * (deviation or 2 / np.sqrt(columns))
        writer.add_tensor(name, scaled.half().cpu().numpy())

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    key_value = KEY_VALUE_HEADS * (WIDTH // HEADS)
    matrix("token_embd.weight", VOCABULARY, WIDTH, 1)
    ones("output_norm.weight")
    matrix("output.weight", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        ones(f"{block}.ffn_norm.weight")
        matrix(f"{block}.attn_q.weight", WIDTH, WIDTH)
        matrix(f"{block}.attn_k.weight", key_value, WIDTH)
        matrix(f"{block}.attn_v.weight", key_value, WIDTH)
        matrix(f"{block}.attn_output.weight", WIDTH, WIDTH)
        matrix(f"{block}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_up.weight", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_down.weight", WIDTH, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
