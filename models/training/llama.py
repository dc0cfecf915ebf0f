"""A plain Llama in PyTorch, small enough to read in one sitting. Parameters are named as Hugging Face names them."""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass(frozen=True)
class Shape:
    """The numbers of a Llama; the defaults are those of the model that ships."""

    width: int = 384
    layers: int = 12
    heads: int = 6
    kv_heads: int = 2
    head_width: int = 64
    feed_forward: int = 1024
    vocabulary: int = 8192
    context: int = 8192
    rope_theta: float = 100_000.0
    norm_eps: float = 1e-5


TOY = Shape(width=64, layers=2, heads=4, kv_heads=2, head_width=16, feed_forward=128, context=1024)


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        width, queries, keys = shape.width, shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        self.input_layernorm = nn.RMSNorm(width, eps=shape.norm_eps)
        self.q_proj = nn.Linear(width, queries, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, keys, bias=False)
        self.o_proj = nn.Linear(queries, width, bias=False)
        self.post_attention_layernorm = nn.RMSNorm(width, eps=shape.norm_eps)
        self.gate_proj = nn.Linear(width, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(width, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, width, bias=False)

    def forward(self, x, cos, sin):
        rows, length, _ = x.shape
        h = self.input_layernorm(x)
        q, k, v = (
            proj(h).view(rows, length, -1, self.shape.head_width).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o_proj(attended.transpose(1, 2).reshape(rows, length, -1))
        h = self.post_attention_layernorm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


def rotate(x, cos, sin):
    """Rotary position embedding, the two halves of a head rotating together (Hugging Face's order)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Llama(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)

        residual = 0.02 / math.sqrt(2 * shape.layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=residual if into_residual else 0.02)

        frequencies = shape.rope_theta ** (-torch.arange(0, shape.head_width, 2).float() / shape.head_width)
        angles = torch.arange(shape.context).float()[:, None] * frequencies[None]
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids):
        """The last hidden states, normed; the logits are F.linear(hidden, embed_tokens.weight): the two are tied."""
        x = self.embed_tokens(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for block in self.layers:
            x = block(x, cos, sin)
        return self.norm(x)

    def loss(self, ids, weights):
        """Weighted cross-entropy of every token given those before it. weights[:, i] belongs to ids[:, i]."""
        logits = F.linear(self(ids[:, :-1]), self.embed_tokens.weight).float()
        losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weights = weights[:, 1:].flatten()
        return (losses * weights).sum() / weights.sum()
