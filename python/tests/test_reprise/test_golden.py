"""Both languages read the same golden frames and vectors: test/golden/wire, test/vectors."""

import json
import re
import struct
from array import array
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from conftest import REPOSITORY
from reprise import ProtocolError, SpaceDescription, kinds, protocol, rows
from reprise.errors import ERROR_CODES
from reprise.frames import MAX_HELLO_BYTES, FrameReader, encode_frame, parse_answer
from reprise.keys import chunk_keys, root_key, tenant_name
from reprise.space import canonical_space, groups_of, space_id

GOLDEN = REPOSITORY / "test" / "golden" / "wire"
TABLES = json.loads((GOLDEN / "protocol.json").read_text())
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
    """Golden descriptions write tokens as {"u32le": [...]}, other bytes as {"hex": "..."}."""
    if isinstance(value, dict) and set(value) == {"hex"}:
        return bytes.fromhex(value["hex"])
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


def test_the_version_and_the_limits_are_those_of_the_cache() -> None:
    assert TABLES["version"] == protocol.PROTOCOL_VERSION
    assert TABLES["limits"] == {
        "maxPendingRequests": protocol.MAX_PENDING_REQUESTS,
        "maxRequestTokens": protocol.MAX_REQUEST_TOKENS,
        "maxListed": kinds.MAX_LISTED,
        "maxDeadlineMs": kinds.MAX_DEADLINE_MS,
        "maxTextCharacters": kinds.MAX_TEXT_CHARACTERS,
    }


@pytest.mark.parametrize("table", ["requests", "answers"])
def test_the_messages_are_those_of_the_cache_field_by_field(table: str) -> None:
    union = protocol.Request if table == "requests" else protocol.Answer
    ours = {struct.__struct_config__.tag: fields_of(inspect.type_info(struct)) for struct in union.__args__}
    for name, fields in TABLES[table].items():
        assert list(ours[name].items()) == list(fields.items())  # their order counts
    assert list(ours) == list(TABLES[table])


def fields_of(struct: inspect.Type) -> dict[str, Any]:
    """The kinds of a struct's fields, written as test/golden/wire/protocol.json writes them."""
    assert isinstance(struct, inspect.StructType)
    assert struct.forbid_unknown_fields
    return {field.encode_name: kind_of(field.type) for field in struct.fields}


NUMBERED: dict[tuple[object, ...], dict[int, str]] = {
    tuple(names): names for names in (rows.TIER_NAMES, rows.KIND_NAMES)
}


def kind_of(declared: inspect.Type) -> dict[str, Any]:  # noqa: PLR0911, PLR0912  a table: one case, one kind
    match declared:
        case inspect.IntType(ge=0, le=most):
            return {"kind": "count", "most": most}
        case inspect.UnionType(types=(inspect.IntType(ge=0, le=most), inspect.FloatType(ge=0, le=also))) if (
            most == also
        ):
            return {"kind": "longCount", "most": most}
        case inspect.UnionType(types=(kind, inspect.NoneType())):
            return {"kind": "optional", "of": kind_of(kind)}
        case inspect.BoolType():
            return {"kind": "flag"}
        case inspect.StrType(max_length=most, pattern=None):
            return {"kind": "text", "most": most}
        case inspect.StrType(max_length=most, pattern=r"\A[^\r\n]*\Z"):
            return {"kind": "line", "most": most}
        case inspect.BytesType(min_length=32, max_length=32):
            return {"kind": "digest"}
        case inspect.MemoryViewType():
            return {"kind": "tokens"}
        case inspect.LiteralType(values=values) if set(values) == ERROR_CODES:
            return {"kind": "oneOf", "texts": [code for code in error_codes() if code in values]}
        case inspect.LiteralType(values=values) if names := NUMBERED.get(values):
            return {"kind": "numbered", "numbers": {name: number for number, name in names.items()}}
        case inspect.ListType(item_type=inspect.StructType(array_like=True) as row, max_length=most):
            return {"kind": "rows", "columns": fields_of(row), "most": most}
        case inspect.LiteralType(values=values):
            return {"kind": "oneOf", "texts": list(values)}
        case inspect.ListType(item_type=item, max_length=most) | inspect.VarTupleType(item_type=item, max_length=most):
            return {"kind": "list", "of": kind_of(item), "most": most}
        case inspect.DictType(value_type=inspect.AnyType()):
            return {"kind": "anyMap"}
        case inspect.DictType(key_type=inspect.StrType(), value_type=value):
            return {"kind": "countByName", "of": kind_of(value)}
        case inspect.StructType():
            return {"kind": "record", "fields": fields_of(declared)}
    raise AssertionError(f"no kind of the wire: {declared}")


def error_codes() -> list[str]:
    """The codes in the cache's table, in its order."""
    source = (REPOSITORY / "src" / "errors.ts").read_text()
    table = source[source.index("errorCodes = {") : source.index("} as const")]
    return re.findall(r"^  ([A-Z_]+):", table, re.MULTILINE)


def test_the_error_codes_are_those_of_the_cache() -> None:
    assert set(error_codes()) == ERROR_CODES


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
        {"type": "found", "id": 1, "segments": [[0, 0, 0, -1, 1]], "worthTokens": 1, "more": False},
        {"type": "found", "id": 1, "segments": [[2, 0, 0, 1, 1]], "worthTokens": 1, "more": False},
        {"type": "found", "id": 1, "segments": [[0, 0, 0, 1, 1]], "more": False},
        {"type": "parts", "id": 1, "parts": [[1, 0, 0, 0, 4, 0, 4, 0, 1, 0]]},
        {"type": "parts", "id": 1, "parts": [[1, 0, 0, 0, 4, 0, 4, 0, 1, 0, 8, 9]]},
        {"type": "parts", "id": 1, "parts": [[1, 0, 0, 0, 4, 1, 4, 1, 1, 0, 8]]},
        {"type": "parts", "id": 1, "parts": [[1, 0, 0, 0, 4, 0, 4, 0, 9, 0, 8]]},
        {"type": "parts", "id": 1, "parts": [[1, 0, 0, 0, 4, 0, 4, 0, 1, 0.5, 8]]},
        {"type": "parts", "id": 1, "parts": [[1, 0, 0, 0, 4, 0, 4, 8, 1, 0, 8]]},
        {"type": "parts", "id": 1, "parts": [[1, 64, 0, 0, 4, 0, 4, 0, 1, 0, 8]]},
        {"type": "reserved", "id": 1, "full": False, "parts": [[1, 64, 0, 4, 0, 8]]},
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
    golden = frame_of(next(golden for golden in MESSAGES if golden["name"] == "parts"))[4:]
    for end in range(len(golden)):
        with pytest.raises(ProtocolError):
            parse_answer(golden[:end])
    with pytest.raises(ProtocolError):
        parse_answer(golden + b"\x00")
    with pytest.raises(ProtocolError):
        parse_answer(b"\x91" * 100_000)


def test_a_frame_that_is_empty_or_too_long_is_refused() -> None:
    for length in (0, MAX_HELLO_BYTES + 1):
        with pytest.raises(ProtocolError):
            FrameReader().push(struct.pack("<I", length))


@pytest.mark.parametrize("vector", VECTORS["spaces"], ids=lambda vector: vector["id"][:8])
def test_a_space_has_the_identity_that_the_cache_gives_it(vector: dict[str, Any]) -> None:
    space = msgspec.convert(vector["space"], SpaceDescription)
    assert canonical_space(space).decode() == vector["canonical"]
    assert space_id(space) == vector["id"]


def test_keys_are_those_of_the_cache() -> None:
    for vector in VECTORS["roots"] + VECTORS["oddRoots"]:
        assert root_key(vector["space"], vector["salt"], vector["adapter"]) == vector["key"]
    for vector in VECTORS["longRoots"]:
        text = vector["text"] * vector["times"]
        assert root_key(vector["space"], text) == vector["saltKey"]
        assert root_key(vector["space"], "", text) == vector["adapterKey"]
    for vector in VECTORS["tenants"]:
        assert tenant_name(vector["tenant"]).hex() == vector["name"]
    for vector in VECTORS["chunks"]:
        assert chunk_keys(vector["root"], array("I", vector["tokens"]), vector["chunkTokens"]) == vector["keys"]


def test_a_space_with_a_float_or_a_line_break_or_a_group_of_no_kind_has_no_identity() -> None:
    space = msgspec.convert(VECTORS["spaces"][0]["space"], SpaceDescription)
    odd = ({"rope": "a\nb"}, {"rope": "\ud800"}, {"layers": 1.5}, {"layers": True}, {"groups": ("rows", "columns")})
    for change in odd:
        with pytest.raises(TypeError):
            space_id(msgspec.structs.replace(space, **change))


def test_one_group_of_rows_is_the_same_space_whether_it_is_named_or_not() -> None:
    space = msgspec.convert(VECTORS["spaces"][0]["space"], SpaceDescription)
    named = msgspec.structs.replace(space, groups=("rows",))
    assert space.groups is None
    assert groups_of(space) == groups_of(named) == ("rows",)
    assert space_id(space) == space_id(named)
    for other in (("rows", "rows"), ("snapshot",), ("rows", "snapshot")):
        assert space_id(msgspec.structs.replace(space, groups=other)) != space_id(space)
