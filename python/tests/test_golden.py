"""Both languages read the same golden frames and vectors: test/golden/wire, test/vectors."""

import json
import re
import struct
from array import array
from typing import Any

import msgspec
import pytest

from conftest import REPOSITORY
from reprise import ProtocolError, SpaceDescription, protocol
from reprise.errors import ERROR_CODES
from reprise.keys import chunk_keys, root_key
from reprise.protocol import FrameReader, encode_frame, parse_answer
from reprise.space import canonical_space, space_id

GOLDEN = REPOSITORY / "test" / "golden" / "wire"
MESSAGES = json.loads((GOLDEN / "messages.json").read_text())
FROM_GUEST = [golden for golden in MESSAGES if golden["from"] == "guest"]
FROM_CACHE = [golden for golden in MESSAGES if golden["from"] == "cache"]
REQUESTS = {cls.__struct_config__.tag: cls for cls in protocol.Request.__args__}
VECTORS = json.loads((REPOSITORY / "test" / "vectors" / "keys.json").read_text())


def name_of(golden: dict[str, Any]) -> str:
    return str(golden["name"])


def frame_of(golden: dict[str, Any]) -> bytes:
    return (GOLDEN / f"{golden['name']}.bin").read_bytes()


def request_of(message: dict[str, Any]) -> protocol.Request:
    fields = {"from_token" if name == "from" else snake(name): value for name, value in message.items()}
    kind = REQUESTS[fields.pop("type")]
    if fields.get("space") is not None:
        fields["space"] = msgspec.convert(fields["space"], SpaceDescription)
    request: protocol.Request = kind(**fields)
    return request


def snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), name)


def with_bytes(value: Any) -> Any:
    """Golden descriptions write tokens as {"u32le": [...]}."""
    if isinstance(value, dict) and set(value) == {"u32le"}:
        return struct.pack(f"<{len(value['u32le'])}I", *value["u32le"])
    return {key: with_bytes(item) for key, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("golden", FROM_GUEST, ids=name_of)
def test_what_a_guest_writes_is_the_golden_frame(golden: dict[str, Any]) -> None:
    message = with_bytes(golden["message"])
    request = request_of(message)
    frame = bytes(encode_frame(request))
    assert msgspec.msgpack.decode(frame[4:]) == msgspec.msgpack.decode(frame_of(golden)[4:]) == message
    if golden["name"] != "release":  # has a number above 2**32, which the other encoder writes as a float
        assert frame == frame_of(golden)


@pytest.mark.parametrize("golden", FROM_CACHE, ids=name_of)
def test_what_a_cache_writes_is_read_as_the_golden_description_says(golden: dict[str, Any]) -> None:
    reader = FrameReader()
    bodies = [body for byte in frame_of(golden) for body in reader.push(bytes([byte]))]
    assert len(bodies) == 1
    assert reader.pending_bytes == 0
    assert msgspec.to_builtins(parse_answer(bodies[0])) == golden["message"]


def test_the_protocol_version_and_limits_are_those_of_the_cache() -> None:
    source = (REPOSITORY / "src" / "wire" / "protocol.ts").read_text()
    assert f"protocolVersion = {protocol.PROTOCOL_VERSION};" in source
    assert f"maxPendingRequests = {protocol.MAX_PENDING_REQUESTS};" in source
    numbers = re.search(r"tierNumbers[^=]*= \{ (.*) \};", source)
    assert numbers is not None
    assert numbers[1] == ", ".join(f"{name}: {number}" for number, name in protocol.TIER_NAMES.items())


def test_the_error_codes_are_those_of_the_cache() -> None:
    source = (REPOSITORY / "src" / "errors.ts").read_text()
    table = source[source.index("errorCodes = {") : source.index("} as const")]
    assert set(re.findall(r"^  ([A-Z_]+):", table, re.MULTILINE)) == ERROR_CODES


@pytest.mark.parametrize(
    "message",
    [
        {"type": "pong"},
        {"type": "pong", "id": "1"},
        {"type": "pong", "id": -1},
        {"type": "pong", "id": 1.5},
        {"type": "pong", "id": True},
        {"type": "pong", "id": 2**53},
        {"type": "pong", "id": 1, "more": 0},
        {"type": "hello", "id": 1},
        {"type": "found", "id": 1, "hitTokens": 1, "tokensByTier": {"memory": -1}, "worthTokens": 1},
        {"type": "found", "id": 1, "hitTokens": 1, "tokensByTier": {"memory": 1}},
        {"type": "chunks", "id": 1, "chunks": [[1, 0, 4, 4, 1, 0]]},
        {"type": "chunks", "id": 1, "chunks": [[1, 0, 4, 4, 1, 0, 8, 9]]},
        {"type": "chunks", "id": 1, "chunks": [[1, 0, 4, 5, 1, 0, 8]]},
        {"type": "chunks", "id": 1, "chunks": [[1, 0, 4, 4, 9, 0, 8]]},
        {"type": "chunks", "id": 1, "chunks": [[1, 0, 4, 4, 1, 0.5, 8]]},
        {"type": "error", "id": 1, "code": "NO_SUCH_CODE", "message": ""},
        [1, 2],
        None,
    ],
    ids=str,
)
def test_an_answer_that_is_not_of_the_protocol_is_refused(message: object) -> None:
    with pytest.raises(ProtocolError):
        parse_answer(msgspec.msgpack.encode(message))


def test_bytes_that_are_no_messagepack_are_refused() -> None:
    golden = frame_of(next(golden for golden in MESSAGES if golden["name"] == "chunks"))[4:]
    for end in range(len(golden)):
        with pytest.raises(ProtocolError):
            parse_answer(golden[:end])
    with pytest.raises(ProtocolError):
        parse_answer(golden + b"\x00")
    with pytest.raises(ProtocolError):
        parse_answer(b"\x91" * 100_000)


def test_a_frame_that_is_empty_or_too_long_is_refused() -> None:
    for length in (0, protocol.MAX_HELLO_BYTES + 1):
        with pytest.raises(ProtocolError):
            FrameReader().push(struct.pack("<I", length))


@pytest.mark.parametrize("vector", VECTORS["spaces"], ids=lambda vector: vector["id"][:8])
def test_a_space_has_the_identity_that_the_cache_gives_it(vector: dict[str, Any]) -> None:
    space = msgspec.convert(vector["space"], SpaceDescription)
    assert canonical_space(space).decode() == vector["canonical"]
    assert space_id(space) == vector["id"]


def test_keys_are_those_of_the_cache() -> None:
    for vector in VECTORS["roots"]:
        assert root_key(vector["space"], vector["salt"], vector["adapter"]) == vector["key"]
    for vector in VECTORS["chunks"]:
        assert chunk_keys(vector["root"], array("I", vector["tokens"]), vector["chunkTokens"]) == vector["keys"]


def test_a_space_with_a_float_or_a_line_break_has_no_identity() -> None:
    space = msgspec.convert(VECTORS["spaces"][0]["space"], SpaceDescription)
    for change in ({"rope": "a\nb"}, {"layers": 1.5}, {"layers": True}):
        with pytest.raises(TypeError):
            space_id(msgspec.structs.replace(space, **change))
