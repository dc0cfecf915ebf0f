"""What a field of a message may be, as src/wire/kinds.ts has it: msgspec checks these where an answer is read."""

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta

#: The largest number in a message.
MAX_NUMBER: Final = 2**53 - 1
#: Characters of a space's texts and of a token.
MAX_TEXT_CHARACTERS: Final = 4096
#: Groups of layers that a space may have.
MAX_GROUPS: Final = 64
#: Leases in one message.
MAX_LISTED: Final = 65_536
#: The longest that anybody may wait for an answer.
MAX_DEADLINE_MS: Final = 3_600_000

Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
#: Of one of a space's groups.
GroupNumber = Annotated[int, Meta(ge=0, le=MAX_GROUPS - 1)]
Milliseconds = Annotated[int, Meta(ge=0, le=MAX_DEADLINE_MS)]
#: Whole numbers above 2**32 may travel as float64: the cache's encoder writes them so. `whole` makes them integers.
if TYPE_CHECKING:
    LongCount = int
else:
    LongCount = Annotated[int, Meta(ge=0, le=MAX_NUMBER)] | Annotated[float, Meta(ge=0, le=MAX_NUMBER)]
#: A text without line breaks.
Line = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS, pattern=r"\A[^\r\n]*\Z")]
ShortText = Annotated[str, Meta(max_length=64)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Features = Annotated[list[Text], Meta(max_length=64)]
Leases = Annotated[list[LongCount], Meta(max_length=MAX_LISTED)]


def whole(value: int | float) -> int:
    """A number that may have travelled as float64."""
    if value != int(value):
        raise ValueError("is not a whole number")
    return int(value)
