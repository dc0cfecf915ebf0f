r"""Space: the identity under which KV bytes are interchangeable.

Two engines share KV exactly when they describe the same space, in whatever language they are written. The rules are in
src/cache/space.ts; both languages check test/vectors/keys.json:

    "reprise-space-1\n" then one line "name=value\n" per field, sorted by name; integers in decimal, texts as UTF-8
    without line breaks, floating point numbers never (they travel as the hexadecimal bits of an IEEE double).
"""

import hashlib
import struct

import msgspec


class SpaceDescription(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Everything that could change a byte of KV.

    Two spaces that differ in any field share nothing. Floats enter as texts of `double_bits`.
    """

    #: Engine family whose payload layout this is: "llama.cpp", "vllm", or a name of your own.
    engine: str
    #: Version of that layout; it changes whenever the bytes of a payload change their meaning.
    payload_format: int
    #: SHA-256 of the weights, hexadecimal.
    weights: str
    #: Element types of keys and values as the engine names them, for example "bf16".
    key_type: str
    value_type: str
    layers: int
    key_value_heads: int
    #: Elements of one head's key and value.
    key_size: int
    value_size: int
    #: Order of the bytes in a payload, for example "token-major".
    layout: str
    #: "dense", "sliding", "mla" …
    attention: str
    #: Every RoPE parameter in one text of the engine's making.
    rope: str
    #: Ranks that share a token's KV; a chunk has one payload per rank.
    tensor_parallel: int
    #: Tokens per chunk.
    chunk_tokens: int


def canonical_space(space: SpaceDescription) -> bytes:
    """The bytes whose SHA-256 is the space's identity.

    Raises TypeError when a field has a line break, or is neither a whole number nor a text.
    """
    fields = {
        encoded: getattr(space, name)
        for encoded, name in zip(space.__struct_encode_fields__, space.__struct_fields__, strict=True)
    }
    lines = [f"{name}={_canonical_value(name, fields[name])}\n" for name in sorted(fields)]
    return "".join(["reprise-space-1\n", *lines]).encode()


def space_id(space: SpaceDescription) -> str:
    """The identity of `space`: 64 hexadecimal digits. Raises TypeError like `canonical_space`."""
    return hashlib.sha256(canonical_space(space)).hexdigest()


def double_bits(value: float) -> str:
    """The bits of an IEEE double, 16 hexadecimal digits: how a float enters a space without being printed."""
    return struct.pack(">d", value).hex()


def _canonical_value(name: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return str(value)
    if isinstance(value, str) and "\n" not in value and "\r" not in value:
        return value
    raise TypeError(f"space field {name} must be a whole number or a text without line breaks")
