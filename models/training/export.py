"""export.py RUN DATA OUT.gguf: the weights that train.py left in RUN, as a GGUF quantized to Q8_0.

Matrices become Q8_0, norms stay float32. `models/to-huggingface.py` makes a Hugging Face folder of the result.
"""

import json
import sys
from pathlib import Path

import gguf
import torch
from tokenizers import Tokenizer

END_OF_TEXT, END, PAD = 0, 4, 5
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
IN_A_BLOCK = {
    "input_layernorm": "attn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def main(run, data, out):
    shape = json.loads((Path(run) / "run.json").read_text())["shape"]
    weights = {}
    for part in sorted(Path(run).glob("part*.pt")):
        weights.update(torch.load(part))

    writer = gguf.GGUFWriter(out, "llama")
    describe(writer)
    add_shape(writer, shape)
    add_tokenizer(writer, Tokenizer.from_file(str(Path(data) / "tokenizer.json")), shape["vocabulary"])
    add_weights(writer, weights, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{out}: {Path(out).stat().st_size / 2**20:.1f} MiB")


def describe(writer):
    writer.add_name("Reprise 22M")
    writer.add_basename("Reprise")
    writer.add_size_label("22M")
    writer.add_description("Answers questions about notes it has just read; made to try and to test KV-cache reuse.")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_shape(writer, shape):
    writer.add_context_length(shape["context"])
    writer.add_embedding_length(shape["width"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["feed_forward"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_key_length(shape["head_width"])
    writer.add_value_length(shape["head_width"])
    writer.add_layer_norm_rms_eps(shape["norm_eps"])
    writer.add_rope_dimension_count(shape["head_width"])
    writer.add_rope_freq_base(shape["rope_theta"])
    writer.add_vocab_size(shape["vocabulary"])


def add_tokenizer(writer, tokenizer, vocabulary):
    told = json.loads(tokenizer.to_str())
    special = {token["id"] for token in told["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([tokenizer.id_to_token(i) for i in range(vocabulary)])
    types = (gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(vocabulary))
    writer.add_token_types(list(types))
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in told["model"]["merges"]])
    writer.add_bos_token_id(END_OF_TEXT)  # never added; named because llama.cpp would otherwise take token 11 for it
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(PAD)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_weights(writer, weights, shape):
    add(writer, "token_embd.weight", weights["embed_tokens.weight"])
    add(writer, "output_norm.weight", weights["norm.weight"])
    for layer in range(shape["layers"]):
        for ours, theirs in IN_A_BLOCK.items():
            tensor = weights[f"layers.{layer}.{ours}.weight"]
            if ours in ("q_proj", "k_proj"):
                tensor = neighbours(tensor, shape["heads" if ours == "q_proj" else "kv_heads"])
            add(writer, f"blk.{layer}.{theirs}.weight", tensor)


def neighbours(matrix, heads):
    """Moves the two halves of each head, which rotate together, side by side: llama.cpp rotates neighbouring rows."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def add(writer, name, tensor):
    values = tensor.float().numpy()
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


if __name__ == "__main__":
    main(*sys.argv[1:4])
