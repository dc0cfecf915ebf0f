"""Rows of messages: a part of a chunk that was loaded or reserved, a segment of a stored text; and what they name."""

from typing import Final, Literal

import msgspec

from reprise.kinds import Count, GroupNumber, LongCount, whole

#: How rows name a tier.
TIER_NAMES: Final = {0: "resident", 1: "memory", 2: "disk", 3: "valkey", 4: "s3", 5: "peer", 6: "nixl", 7: "mooncake"}
TierNumber = Literal[0, 1, 2, 3, 4, 5, 6, 7]
#: How stored KV fits the asked text. Exact: the same tokens from the text's start on. Moved: the same run of tokens
#: after another text or at another position.
KIND_NAMES: Final = {0: "exact", 1: "moved"}
KindNumber = Literal[0, 1]


class LoadedPart(msgspec.Struct, array_like=True, forbid_unknown_fields=True, rename="camel"):
    """A part of a chunk, ready to be read from its slot. A snapshot is the state after the last of its tokens."""

    lease: LongCount
    #: Whose part of the chunk it is, by number.
    group: GroupNumber
    #: As a number of KIND_NAMES.
    kind_number: KindNumber = msgspec.field(name="kind")
    #: Position of the chunk's first token in the text it was stored with.
    first_token: Count
    #: Tokens in the payload.
    token_count: Count
    #: Tokens of the payload before the first that is the text's: none in a stored prefix.
    skip: Count
    #: How many after those are the text's: smaller than the rest in the last chunk of a partial match.
    take: Count
    #: Position of the first of them in the asked text.
    target: Count
    #: Where the chunk was found, as a number of TIER_NAMES.
    tier_number: TierNumber = msgspec.field(name="tier")
    #: Where the payload begins in the pool, in bytes.
    offset: LongCount
    #: Length of the payload.
    bytes: LongCount

    def __post_init__(self) -> None:
        if self.lease.__class__ is float:  # asked before the call: a long load has hundreds of parts
            self.lease = whole(self.lease)
        if self.offset.__class__ is float:
            self.offset = whole(self.offset)
        if self.bytes.__class__ is float:
            self.bytes = whole(self.bytes)
        if self.skip + self.take > self.token_count or (
            self.kind_number == 0 and self.first_token + self.skip != self.target
        ):
            raise ValueError("a part that cannot be")

    @property
    def kind(self) -> str:
        """How it fits the text: "exact" or "moved"."""
        return KIND_NAMES[self.kind_number]

    @property
    def tier(self) -> str:
        """Where the chunk was found: "memory" or "disk"."""
        return TIER_NAMES[self.tier_number]


class ReservedPart(msgspec.Struct, array_like=True, forbid_unknown_fields=True, rename="camel"):
    """A part of a chunk whose slot the guest may write now."""

    lease: LongCount
    group: GroupNumber
    first_token: Count
    token_count: Count
    #: Where the slot begins in the pool, in bytes.
    offset: LongCount
    #: The room there is.
    bytes: LongCount

    def __post_init__(self) -> None:
        if self.lease.__class__ is float:
            self.lease = whole(self.lease)
        if self.offset.__class__ is float:
            self.offset = whole(self.offset)
        if self.bytes.__class__ is float:
            self.bytes = whole(self.bytes)


class Segment(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A run of the asked text whose KV is stored in one tier."""

    #: As a number of KIND_NAMES.
    kind_number: KindNumber = msgspec.field(name="kind")
    #: Where it begins in the text it was stored with; where it stands in the asked text, when it is exact.
    source: Count
    #: Where it begins and ends in the asked text, in tokens.
    from_token: Count = msgspec.field(name="from")
    to: Count
    #: As a number of TIER_NAMES.
    tier_number: TierNumber = msgspec.field(name="tier")

    @property
    def kind(self) -> str:
        """How it fits the text: "exact" or "moved"."""
        return KIND_NAMES[self.kind_number]

    @property
    def tier(self) -> str:
        """Where it is stored: "memory" or "disk"."""
        return TIER_NAMES[self.tier_number]
