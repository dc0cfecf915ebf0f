"""The wire protocol, version 7, as src/wire/protocol.ts defines it: every message is a MessagePack map in a frame.

    guest                                        cache
      hello ───────────────────────────────────►            version, features, space, rank, slotBytes, token, model
            ◄─────────────────────────────────── welcome    spaceId, pool
      lookup · reserve · commit · stats · ping ─►            numbered, pipelined, each with a deadline
            ◄─────── found · reserved · committed · figures · pong   (or error), in any order
      touch · pin · prefetch ──────────────────►            the same
            ◄────────────── touched · pinned · prefetched
      load ────────────────────────────────────►
            ◄───────────────── found, parts, parts, … loaded         all that are ready go together; `cancel` ends it
      release · abandon · bye ──────────────────►            no answer
      clear ────────────────────────────────────► cleared    forgets all that is stored
      compact ──────────────────────────────────► compacted  gives back the room of what cannot be found any more

A guest whose `space` is nil has no session: it comes to look (stats), to clear or to compact, and may do nothing else.

A text is named by its tokens and by `root`, the root's key (keys.py), which the guest computes: no text that a client
has chosen travels here, so none can break a message. `tenant` is a `tenant_name` or nil.

What is stored of a text is a list of segments; a load's parts say which of their tokens stand where in it. In a lookup
and a load the guest says what computing a token of a prompt costs it: `compute_ns`, 0 when it does not know. What the
answer calls `worth_tokens` is as much of the hit as is worth loading then, and as much as a load brings.

A load that is `only_ready` says `more` in its `found` where others (shared stores, a disk whose records are still
returning) may have more of the text and it is worth asking them. A lookup asks them; then it has two answers: what is
known at once, with `more`, and later what is known when they have answered.

Answers are read strictly: an unknown field, a missing one or a wrong type is a ProtocolError, and the peer is
disconnected. The messages are the tables of protocol.ts: a test compares every struct's
fields, their kinds and their order with test/golden/wire/protocol.json, which also has a golden frame of every message.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from reprise.errors import ErrorCode
from reprise.kinds import (
    MAX_GROUPS,
    MAX_LISTED,
    Count,
    Digest,
    Features,
    Leases,
    LongCount,
    Milliseconds,
    ShortText,
    Text,
    whole,
)
from reprise.rows import LoadedPart, ReservedPart, Segment
from reprise.space import SpaceDescription

PROTOCOL_VERSION: Final = 7
#: Requests of one connection that may wait for their answers.
MAX_PENDING_REQUESTS: Final = 1024
#: Tokens of a text in one message; what comes after them is neither found nor stored.
MAX_REQUEST_TOKENS: Final = 2**21
#: Feature: this guest registers the pool's memory with a device, so its pages must stay.
REGISTERED_POOL: Final = "registered-pool"
#: Segments of one answer.
MAX_SEGMENTS: Final = 65_536


class _Message(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, rename="camel"):
    pass


class Hello(_Message, tag="hello", kw_only=True):
    id: Count
    version: Count = PROTOCOL_VERSION
    features: Features = []
    space: SpaceDescription | None
    rank: Count
    #: By group.
    slot_bytes: Annotated[list[Count], Meta(max_length=MAX_GROUPS)]
    token: Text
    #: What people call the model; it identifies nothing.
    model: Text


class Lookup(_Message, tag="lookup"):
    root: Digest
    tenant: Digest | None
    tokens: memoryview
    id: Count
    deadline_ms: Milliseconds
    compute_ns: Count
    #: Somebody is storing the text elsewhere just now: others are asked until they have all of it.
    awaited: bool


class Load(_Message, tag="load"):
    root: Digest
    tenant: Digest | None
    tokens: memoryview
    id: Count
    deadline_ms: Milliseconds
    compute_ns: Count
    from_token: Count = msgspec.field(name="from")
    only_ready: bool


class Cancel(_Message, tag="cancel"):
    id: Count


class Release(_Message, tag="release"):
    leases: Leases


class Reserve(_Message, tag="reserve"):
    root: Digest
    tenant: Digest | None
    tokens: memoryview
    id: Count
    deadline_ms: Milliseconds


class Touch(_Message, tag="touch"):
    root: Digest
    tenant: Digest | None
    tokens: memoryview
    id: Count
    deadline_ms: Milliseconds


class Pin(_Message, tag="pin"):
    root: Digest
    tenant: Digest | None
    tokens: memoryview
    id: Count
    deadline_ms: Milliseconds
    seconds: Count


class Prefetch(_Message, tag="prefetch"):
    root: Digest
    tenant: Digest | None
    tokens: memoryview
    id: Count
    deadline_ms: Milliseconds


class WrittenPart(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What was written into a reserved slot."""

    lease: LongCount
    bytes: LongCount


class Commit(_Message, tag="commit"):
    id: Count
    deadline_ms: Milliseconds
    parts: Annotated[list[WrittenPart], Meta(max_length=MAX_LISTED)]


class Abandon(_Message, tag="abandon"):
    leases: Leases


class Stats(_Message, tag="stats"):
    id: Count
    deadline_ms: Milliseconds


class Clear(_Message, tag="clear"):
    id: Count
    deadline_ms: Milliseconds


class Compact(_Message, tag="compact"):
    id: Count
    deadline_ms: Milliseconds


class Ping(_Message, tag="ping"):
    id: Count
    deadline_ms: Milliseconds


class Bye(_Message, tag="bye"):
    pass


Request = (
    Hello
    | Lookup
    | Load
    | Cancel
    | Release
    | Reserve
    | Touch
    | Pin
    | Prefetch
    | Commit
    | Abandon
    | Stats
    | Clear
    | Compact
    | Ping
    | Bye
)


class Welcome(_Message, tag="welcome"):
    id: Count
    version: Count
    features: Features
    space_id: ShortText
    pool_path: Text
    #: Length of the pool's file, which is sparse.
    pool_bytes: LongCount
    #: How much of it may be in use at a time, from its beginning on unless it was resized.
    pool_capacity_bytes: LongCount

    def __post_init__(self) -> None:
        self.pool_bytes = whole(self.pool_bytes)
        self.pool_capacity_bytes = whole(self.pool_capacity_bytes)


class Found(_Message, tag="found"):
    id: Count
    segments: Annotated[list[Segment], Meta(max_length=MAX_SEGMENTS)]
    worth_tokens: Count
    more: bool


class Parts(_Message, tag="parts"):
    id: Count
    parts: Annotated[list[LoadedPart], Meta(max_length=MAX_LISTED)]


class Loaded(_Message, tag="loaded"):
    id: Count


class Reserved(_Message, tag="reserved"):
    id: Count
    #: True when there was no room for some of what is missing: what comes after the last part given is not stored.
    full: bool
    parts: Annotated[list[ReservedPart], Meta(max_length=MAX_LISTED)]


class Committed(_Message, tag="committed"):
    id: Count


class Touched(_Message, tag="touched"):
    id: Count
    hit_tokens: Count


class Pinned(_Message, tag="pinned"):
    id: Count
    pinned_tokens: Count


class Prefetched(_Message, tag="prefetched"):
    id: Count
    ready_tokens: Count


class Figures(_Message, tag="figures"):
    id: Count
    stats: dict[str, Any]


class Cleared(_Message, tag="cleared"):
    id: Count
    #: Bytes that became free.
    bytes_by_tier: dict[str, LongCount]
    #: Chunks that are still in use and go as soon as they are not.
    chunks_in_use: Count

    def __post_init__(self) -> None:
        self.bytes_by_tier = {tier: whole(freed) for tier, freed in self.bytes_by_tier.items()}


class Compacted(_Message, tag="compacted"):
    id: Count
    #: Bytes given back, and written anew for it, by the drive's directory.
    freed_bytes: dict[str, LongCount]
    moved_bytes: dict[str, LongCount]

    def __post_init__(self) -> None:
        self.freed_bytes = {drive: whole(freed) for drive, freed in self.freed_bytes.items()}
        self.moved_bytes = {drive: whole(moved) for drive, moved in self.moved_bytes.items()}


class Pong(_Message, tag="pong"):
    id: Count


class Refused(_Message, tag="error"):
    id: Count
    code: ErrorCode
    message: Annotated[str, Meta(max_length=65_536)]


Answer = (
    Welcome
    | Found
    | Parts
    | Loaded
    | Reserved
    | Committed
    | Touched
    | Pinned
    | Prefetched
    | Figures
    | Cleared
    | Compacted
    | Pong
    | Refused
)
