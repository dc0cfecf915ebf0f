"""The wire protocol, version 3, as src/wire/protocol.ts defines it: every message is a MessagePack map in a frame.

    guest                                        cache
      hello ───────────────────────────────────►            version, features, space, rank, slotBytes, token
            ◄─────────────────────────────────── welcome    spaceId, pool
      lookup · reserve · commit · stats · ping ─►            numbered, pipelined, each with a deadline
            ◄─────── found · reserved · committed · figures · pong   (or error), in any order
      touch · pin ─────────────────────────────►            the same
            ◄─────────────────────────── touched · pinned
      load ────────────────────────────────────►
            ◄───────────────── found, chunks, chunks, … loaded       all that are ready go together; `cancel` ends it
      release · abandon · bye ──────────────────►            no answer
      clear ────────────────────────────────────► cleared    forgets all that is stored
      compact ──────────────────────────────────► compacted  gives back the room of what cannot be found any more

A guest whose `space` is nil has no session: it comes to look (stats), to clear or to compact, and may do nothing else.

In a lookup and a load the guest says what computing a token of a prompt costs it: `compute_ns`, 0 when it does not
know. What the answer calls `worth_tokens` is as much of the hit as is worth loading then, and as much as a load brings.

A frame is a u32 LE length and the map. Answers are read strictly: an unknown field, a missing one or a wrong type is a
ProtocolError, and the peer is disconnected. Golden frames of every message: test/golden/wire.
"""

import struct
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from reprise.errors import ErrorCode, ProtocolError
from reprise.space import SpaceDescription

PROTOCOL_VERSION: Final = 3
#: Requests of one connection that may wait for their answers.
MAX_PENDING_REQUESTS: Final = 1024
#: Tokens of a text in one message; what comes after them is neither found nor stored.
MAX_REQUEST_TOKENS: Final = 2**21
#: Leases in one message.
MAX_LISTED: Final = 65_536
#: Feature: this guest registers the pool's memory with a device, so its pages must stay.
PINNED_POOL: Final = "pinned-pool"
MAX_DEADLINE_MS: Final = 3_600_000
#: How a chunk's tuple names the tier it was found in.
TIER_NAMES: Final = {0: "resident", 1: "memory", 2: "disk"}
#: Until the handshake is done a peer sends no longer frame.
MAX_HELLO_BYTES: Final = 64 * 1024
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024

_SAFE: Final = 2**53 - 1
Count = Annotated[int, Meta(ge=0, le=_SAFE)]
#: Whole numbers above 2**32 may travel as float64: the cache's encoder writes them so. `_whole` makes them integers.
if TYPE_CHECKING:
    LongCount = int
else:
    LongCount = Annotated[int, Meta(ge=0, le=_SAFE)] | Annotated[float, Meta(ge=0, le=_SAFE)]
ShortText = Annotated[str, Meta(max_length=64)]
Text = Annotated[str, Meta(max_length=4096)]


class _Message(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, rename="camel"):
    pass


class Hello(_Message, tag="hello", kw_only=True):
    id: int
    version: int = PROTOCOL_VERSION
    features: list[str] = []
    space: SpaceDescription | None
    rank: int
    slot_bytes: int
    token: str


class Lookup(_Message, tag="lookup"):
    id: int
    deadline_ms: int
    salt: str
    adapter: str
    tokens: memoryview
    compute_ns: int


class Load(_Message, tag="load"):
    id: int
    deadline_ms: int
    salt: str
    adapter: str
    tokens: memoryview
    compute_ns: int
    from_token: int = msgspec.field(name="from")
    only_ready: bool


class Cancel(_Message, tag="cancel"):
    id: int


class Release(_Message, tag="release"):
    leases: list[int]


class Reserve(_Message, tag="reserve"):
    id: int
    deadline_ms: int
    salt: str
    adapter: str
    tokens: memoryview


class Touch(_Message, tag="touch"):
    id: int
    deadline_ms: int
    salt: str
    adapter: str
    tokens: memoryview


class Pin(_Message, tag="pin"):
    id: int
    deadline_ms: int
    salt: str
    adapter: str
    tokens: memoryview
    seconds: int


class Commit(_Message, tag="commit"):
    id: int
    deadline_ms: int
    chunks: list[tuple[int, int]]


class Abandon(_Message, tag="abandon"):
    leases: list[int]


class Stats(_Message, tag="stats"):
    id: int
    deadline_ms: int


class Clear(_Message, tag="clear"):
    id: int
    deadline_ms: int


class Compact(_Message, tag="compact"):
    id: int
    deadline_ms: int


class Ping(_Message, tag="ping"):
    id: int
    deadline_ms: int


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
    | Commit
    | Abandon
    | Stats
    | Clear
    | Compact
    | Ping
    | Bye
)


class LoadedChunk(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A chunk ready to be read from its slot."""

    lease: LongCount
    #: Position of the chunk's first token in the text.
    first_token: Count
    #: Tokens in the payload.
    token_count: Count
    #: How many of them, from the first, are the text's: smaller in the last chunk of a partial match.
    matched_tokens: Count
    #: Where the chunk was found, as a number of TIER_NAMES.
    tier_number: Count
    #: Where the payload begins in the pool, in bytes.
    offset: LongCount
    #: Length of the payload.
    bytes: LongCount

    def __post_init__(self) -> None:
        if self.lease.__class__ is float:  # asked before the call: a long load has hundreds of chunks
            self.lease = _whole(self.lease)
        if self.offset.__class__ is float:
            self.offset = _whole(self.offset)
        if self.bytes.__class__ is float:
            self.bytes = _whole(self.bytes)
        if self.matched_tokens > self.token_count or self.tier_number not in TIER_NAMES:
            raise ValueError("a chunk that cannot be")

    @property
    def tier(self) -> str:
        """Where the chunk was found: "memory" or "disk"."""
        return TIER_NAMES[self.tier_number]


class ReservedChunk(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A chunk whose slot the guest may write now."""

    lease: LongCount
    first_token: Count
    token_count: Count
    #: Where the slot begins in the pool, in bytes.
    offset: LongCount
    #: The room there is.
    bytes: LongCount

    def __post_init__(self) -> None:
        if self.lease.__class__ is float:
            self.lease = _whole(self.lease)
        if self.offset.__class__ is float:
            self.offset = _whole(self.offset)
        if self.bytes.__class__ is float:
            self.bytes = _whole(self.bytes)


class Welcome(_Message, tag="welcome"):
    id: Count
    version: Count
    features: Annotated[list[str], Meta(max_length=64)]
    space_id: ShortText
    pool_path: Text
    #: Length of the pool's file, which is sparse.
    pool_bytes: LongCount
    #: How much of it may be in use at a time, from its beginning on unless it was resized.
    pool_capacity_bytes: LongCount

    def __post_init__(self) -> None:
        self.pool_bytes = _whole(self.pool_bytes)
        self.pool_capacity_bytes = _whole(self.pool_capacity_bytes)


class Found(_Message, tag="found"):
    id: Count
    hit_tokens: Count
    tokens_by_tier: dict[str, Count]
    worth_tokens: Count


class Chunks(_Message, tag="chunks"):
    id: Count
    chunks: Annotated[list[LoadedChunk], Meta(max_length=MAX_LISTED)]


class Loaded(_Message, tag="loaded"):
    id: Count


class Reserved(_Message, tag="reserved"):
    id: Count
    #: True when there was no room for some of the missing chunks: those after the last one given are not stored.
    full: bool
    chunks: Annotated[list[ReservedChunk], Meta(max_length=MAX_LISTED)]


class Committed(_Message, tag="committed"):
    id: Count


class Touched(_Message, tag="touched"):
    id: Count
    hit_tokens: Count


class Pinned(_Message, tag="pinned"):
    id: Count
    pinned_tokens: Count


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
        self.bytes_by_tier = {tier: _whole(freed) for tier, freed in self.bytes_by_tier.items()}


class Compacted(_Message, tag="compacted"):
    id: Count
    #: Bytes given back, and written anew for it, by the drive's directory.
    freed_bytes: dict[str, LongCount]
    moved_bytes: dict[str, LongCount]

    def __post_init__(self) -> None:
        self.freed_bytes = {drive: _whole(freed) for drive, freed in self.freed_bytes.items()}
        self.moved_bytes = {drive: _whole(moved) for drive, moved in self.moved_bytes.items()}


class Pong(_Message, tag="pong"):
    id: Count


class Refused(_Message, tag="error"):
    id: Count
    code: ErrorCode
    message: Annotated[str, Meta(max_length=65_536)]


Answer = (
    Welcome
    | Found
    | Chunks
    | Loaded
    | Reserved
    | Committed
    | Touched
    | Pinned
    | Figures
    | Cleared
    | Compacted
    | Pong
    | Refused
)

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


def encode_frame(message: Request) -> bytearray:
    """The message as it goes over the socket, length first."""
    frame = bytearray(4)
    _encoder.encode_into(message, frame, 4)
    struct.pack_into("<I", frame, 0, len(frame) - 4)
    return frame


def parse_answer(body: bytes) -> Answer:
    """Reads a cache's message. Raises ProtocolError unless every field is as it must be."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the cache sent a message that is not of its protocol: {error}") from error


class FrameReader:
    """Cuts messages out of a stream of bytes."""

    def __init__(self) -> None:
        #: The longest frame accepted from now on.
        self.limit_bytes = MAX_HELLO_BYTES
        self._pending = bytearray()

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._pending)

    def push(self, piece: bytes) -> list[bytes]:
        """The bodies that are whole now. Raises ProtocolError when a frame is empty or longer than allowed."""
        self._pending += piece
        bodies: list[bytes] = []
        start = 0
        while len(self._pending) - start >= 4:
            (length,) = struct.unpack_from("<I", self._pending, start)
            if length == 0 or length > self.limit_bytes:
                raise ProtocolError(f"the cache sent a frame of {length} bytes; {self.limit_bytes} are allowed")
            if len(self._pending) - start - 4 < length:
                break
            bodies.append(bytes(memoryview(self._pending)[start + 4 : start + 4 + length]))
            start += 4 + length
        del self._pending[:start]
        return bodies


def _whole(value: int | float) -> int:
    if value != int(value):
        raise ValueError("is not a whole number")
    return int(value)
