"""The space that benchmarks store in: no model's, with payloads of any bytes."""

import reprise


def small_space(
    *, chunk_tokens: int, layers: int = 1, head_size: int = 8, layout: str = "token-major", ranks: int = 1
) -> reprise.SpaceDescription:
    """One head of `head_size` a layer and rank."""
    return reprise.SpaceDescription(
        engine="bench",
        payload_format=1,
        weights="00",
        key_type="f16",
        value_type="f16",
        layers=layers,
        key_value_heads=ranks,
        key_size=head_size,
        value_size=head_size,
        layout=layout,
        attention="dense",
        rope="",
        tensor_parallel=ranks,
        chunk_tokens=chunk_tokens,
    )
