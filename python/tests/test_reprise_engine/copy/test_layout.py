"""Where the bytes of a block lie, in every shape that an engine gives its KV cache."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch

from reprise_engine.copy.layers import group_layers
from reprise_engine.copy.layout import LayoutError, read_layout
from test_reprise_engine import layouts
from test_reprise_engine.layouts import ALL, BLOCK_TOKENS

BLOCKS = 23


@pytest.mark.parametrize("name", ALL)
def test_segments_hold_exactly_the_bytes_of_a_block(name: str) -> None:
    caches = ALL[name](BLOCKS)
    layouts.fill(caches, seed=1)
    layout = read_layout(caches, BLOCKS, BLOCK_TOKENS)
    for block in (0, 7, BLOCKS - 1):
        runs = [
            ctypes.string_at(base + block * stride, run)
            for base, stride, run in zip(
                *(column.tolist() for column in (layout.bases, layout.strides, layout.runs)), strict=True
            )
        ]
        assert runs == layouts.plain_block(caches, BLOCKS, block)


@pytest.mark.parametrize("name", ALL)
def test_a_payload_is_as_long_as_its_blocks(name: str) -> None:
    caches = ALL[name](BLOCKS)
    layout = read_layout(caches, BLOCKS, BLOCK_TOKENS)
    own = {tensor.data_ptr(): tensor for tensor in caches.values()}
    assert layout.payload_bytes(BLOCKS) == sum(tensor.numel() * tensor.element_size() for tensor in own.values())
    assert layout.starts.tolist() == np.cumsum([0, *layout.runs.tolist()[:-1]]).tolist()


def test_the_expected_number_of_runs() -> None:
    runs = {name: read_layout(make(BLOCKS), BLOCKS, BLOCK_TOKENS).runs.size for name, make in ALL.items()}
    assert runs == {
        "flash": 6,
        "flashinfer": 3,
        "flashinfer_hnd": 2,
        "mla": 3,
        "mla_odd": 2,
        "cpu_attention": 4,
        "packed_nhd": 3,
        "heads_outside": 8,
        "cross_layer": 3,
        "heads_then_layers": 6,
        "smaller_kernel_blocks": 4,
        "shared_kv": 4,
    }


@pytest.mark.parametrize("name", ALL)
def test_the_signature_knows_neither_addresses_nor_the_number_of_blocks(name: str) -> None:
    here, there = (read_layout(ALL[name](blocks), blocks, BLOCK_TOKENS) for blocks in (BLOCKS, 37))
    assert here.signature == there.signature


def test_what_changes_the_meaning_of_bytes_changes_the_signature() -> None:
    made = [make(BLOCKS) for name, make in ALL.items() if name != "shared_kv"]
    made += [
        layouts.flash(BLOCKS, dtype=torch.float16),
        layouts.flash(BLOCKS, layers=4),
        layouts.flash(BLOCKS, h=4, d=4),
        {f"other.{i}": tensor for i, tensor in enumerate(layouts.flash(BLOCKS).values())},
    ]
    signatures = [read_layout(caches, BLOCKS, BLOCK_TOKENS).signature for caches in made]
    signatures.append(read_layout(layouts.smaller_kernel_blocks(BLOCKS), BLOCKS * 2, BLOCK_TOKENS // 2).signature)
    assert len(set(signatures)) == len(signatures)


def test_heads_beside_tokens_and_tokens_beside_heads_differ() -> None:
    nhd = layouts.packed_nhd(BLOCKS)
    hnd = {name: torch.zeros(BLOCKS, 4, 16, 16, dtype=torch.bfloat16) for name in nhd}
    assert {tuple(tensor.shape) for tensor in (*nhd.values(), *hnd.values())} == {(BLOCKS, 4, 16, 16)}
    assert read_layout(nhd, BLOCKS, 16).signature != read_layout(hnd, BLOCKS, 16).signature


def test_layouts_that_differ_only_between_blocks_share_their_bytes() -> None:
    apart = {name: torch.zeros(BLOCKS, 2, 16, 8, dtype=torch.bfloat16) for name in layouts.cross_layer(BLOCKS)}
    assert read_layout(apart, BLOCKS, 16).signature == read_layout(layouts.cross_layer(BLOCKS), BLOCKS, 16).signature


@pytest.mark.parametrize(
    ("caches", "says"),
    [
        ({}, "no KV cache tensors"),
        ({"a": torch.zeros(16, 16, 4)}, "axes"),
        ({"a": torch.zeros(BLOCKS + 1, 16, 4)}, "no axis"),
        ({"a": [torch.zeros(BLOCKS, 4)]}, "not one tensor"),
        ({"a": torch.zeros(BLOCKS, 1, 4).expand(BLOCKS, 16, 4)}, "repeats"),
    ],
)
def test_what_would_need_a_guess_is_refused(caches: layouts.Caches, says: str) -> None:
    with pytest.raises(LayoutError, match=says):
        read_layout(caches, 16 if says == "axes" else BLOCKS, 16)


def test_layers_that_overlap_in_part_are_refused() -> None:
    shared = torch.zeros(BLOCKS * 64 + 32)
    caches = {"a": shared[: BLOCKS * 64].view(BLOCKS, 16, 4), "b": shared[32:].view(BLOCKS, 16, 4)}
    with pytest.raises(LayoutError, match="share"):
        read_layout(caches, BLOCKS, 16)


def test_the_alignment_divides_all_runs() -> None:
    assert read_layout(layouts.mla_odd(BLOCKS), BLOCKS, 16).alignment == 16
    odd = {"a": torch.zeros(BLOCKS, 16, 37, dtype=torch.uint8)[:, :, :36]}
    assert read_layout(odd, BLOCKS, 16).alignment in (1, 2, 4)


def grouped(layers: int, blocks: int, layer_bytes: int) -> list[tuple[int, int]] | None:
    caches = {f"l{i}": torch.zeros(40, 16, layer_bytes // 16, dtype=torch.uint8) for i in range(layers)}
    layout = read_layout(caches, 40, 16)
    groups = group_layers(layout, blocks)
    if groups is None:
        return None
    assert [groups.of_layer[f"l{i}"] for i in range(layers)] == [
        next(g for g, (begin, end) in enumerate(groups.spans) if begin <= i < end) for i in range(layers)
    ]
    assert [begin for begin, _ in groups.spans] == [0, *(end for _, end in groups.spans[:-1])]
    assert groups.spans[-1][1] == layers
    return list(groups.spans)


def test_layers_are_grouped_with_copies_that_are_not_small() -> None:
    mib = 1 << 20
    assert grouped(32, 32, mib // 64) == [(0, 8), (8, 20), (20, 28), (28, 32)]  # chunks of 16 MiB
    assert grouped(32, 8, mib // 64) == [(0, 8), (8, 20), (20, 32)]
    assert grouped(32, 1, mib // 64) is None
    assert grouped(1, 32, mib // 16) is None
    assert grouped(2, 32, mib // 16) == [(0, 1), (1, 2)]


def test_a_layer_that_uses_anothers_kv_has_its_segments() -> None:
    own = torch.zeros(8, 16, 4)
    layout = read_layout({"a": own, "b": torch.zeros(8, 16, 4), "c": own}, 8, 16)
    assert layout.layers == {"a": (0, 1), "b": (1, 2), "c": (0, 1)}
