r"""Space: the identity under which KV bytes are interchangeable, as src/identity/space.ts says it.

Two engines share KV exactly when they describe the same space, in whatever language they are written. The rules are in
src/identity/space.ts; both languages check test/vectors/keys.json:

    "reprise-space-1\n" then one line "name=value\n" per field, sorted by name; integers in decimal, texts as UTF-8
    without line breaks, floating point numbers never (they travel as the hexadecimal bits of an IEEE double). `groups`
    as its kinds with commas between them, and no line at all where there is one group of rows.

What is stored of a chunk is its parts: one payload for each group of each rank.

    part = rank x number of groups + group
"""

import hashlib
import struct
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta

from reprise.keys import is_utf8
from reprise.kinds import MAX_GROUPS, Count, Line

#: How the KV of a group of layers lies in its payload. rows: token by token, so that it can be cut anywhere and a
#: chunk's payload continues that of the chunk before it. snapshot: the state after the chunk's last token, which stands
#: for all the text before it and is good for nothing else: what recurrent layers keep.
GroupKind = Literal["rows", "snapshot"]
_ONE_GROUP: Final[tuple[GroupKind, ...]] = ("rows",)


class SpaceDescription(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Everything that could change a byte of KV.

    Two spaces that differ in any field share nothing. Floats enter as texts of `double_bits`.
    """

    #: Engine family whose payload layout this is: "llama.cpp", "vllm", or a name of your own.
    engine: Line
    #: Version of that layout; it changes whenever the bytes of a payload change their meaning.
    payload_format: Count
    #: SHA-256 of the weights, hexadecimal.
    weights: Line
    #: Element types of keys and values as the engine names them, for example "bf16".
    key_type: Line
    value_type: Line
    layers: Count
    key_value_heads: Count
    #: Elements of one head's key and value.
    key_size: Count
    value_size: Count
    #: Order of the bytes in a payload, for example "token-major".
    layout: Line
    #: "dense", "sliding", "mla" …
    attention: Line
    #: Every RoPE parameter in one text of the engine's making.
    rope: Line
    #: Ranks that share a token's KV; each has a part of a chunk for each of its groups.
    tensor_parallel: Count
    #: Tokens per chunk.
    chunk_tokens: Count
    #: The groups of layers that have payloads of their own, at least one of rows among them. None: one group of rows.
    groups: Annotated[tuple[GroupKind, ...], Meta(max_length=MAX_GROUPS)] | None = None


def groups_of(space: SpaceDescription) -> tuple[GroupKind, ...]:
    """The kinds of a space's groups, by group."""
    return _ONE_GROUP if space.groups is None else tuple(space.groups)


def canonical_space(space: SpaceDescription) -> bytes:
    """The bytes whose SHA-256 is the space's identity.

    Raises TypeError when a field has a line break or half a character, or is neither a whole number nor a text, and
    when a group is of no kind that there is.
    """
    fields = {
        encoded: getattr(space, name)
        for encoded, name in zip(space.__struct_encode_fields__, space.__struct_fields__, strict=True)
    }
    groups = groups_of(space)
    if not set(groups) <= set(get_args(GroupKind)):
        raise TypeError(f"space field groups must be of the kinds {get_args(GroupKind)}, not {groups}")
    if groups == _ONE_GROUP:
        del fields["groups"]
    else:
        fields["groups"] = ",".join(groups)
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
    if isinstance(value, str) and "\n" not in value and "\r" not in value and is_utf8(value):
        return value
    raise TypeError(f"space field {name} must be a whole number or a text of whole characters without line breaks")
