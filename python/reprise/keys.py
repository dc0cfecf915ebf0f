r"""Keys of chunks: how a stored chunk is named below the memory tier and between hosts.

    root key  = SHA-256("reprise-root-1\n" + space id, 32 bytes + text(salt) + text(adapter))
    text(x)   = u32 LE length of text_bytes(x) + text_bytes(x)
    chunk key = SHA-256(parent key, 32 bytes + tokens, u32 LE each)          (the first chunk's parent is the root)

The rules are in src/identity/keys.ts; both languages check test/vectors/keys.json. A link names a text by its root's
key and its tokens, so that salts and adapters may be any texts; chunk keys are for routers and tools that name chunks.
"""

import hashlib
import struct

from reprise.tokens import TokenBuffer, token_bytes, token_bytes_each


def root_key(space_id: str, salt: str = "", adapter: str = "") -> str:
    """The key under which the texts of one salt and adapter begin: 64 hexadecimal digits.

    Both may be any text, of any length. Raises TypeError when one is no text.
    """
    digest = hashlib.sha256(b"reprise-root-1\n" + bytes.fromhex(space_id))
    for name, text in (("salt", salt), ("adapter", adapter)):
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a text, not {type(text).__name__}")
        encoded = text_bytes(text)
        digest.update(struct.pack("<I", len(encoded)) + encoded)
    return digest.hexdigest()


def tenant_name(tenant: str) -> bytes:
    """32 bytes for a tenant, however long its own name is."""
    return hashlib.sha256(text_bytes(tenant)).digest()


def text_bytes(text: str) -> bytes:
    """Any text as bytes, so that texts that differ differ in their bytes too: UTF-8.

    Half of a character beyond U+FFFF, which JSON may name, has the three bytes that its number would have (WTF-8).
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return joined.encode("utf-8", "surrogatepass")


def chunk_keys(root: str, tokens: TokenBuffer, chunk_tokens: int) -> list[str]:
    """The keys of all chunks of a text, the tail last. `tokens`: u32 LE."""
    view = token_bytes(tokens)
    step = chunk_tokens * token_bytes_each
    keys: list[str] = []
    parent = bytes.fromhex(root)
    for first in range(0, len(view), step):
        parent = hashlib.sha256(parent + view[first : first + step]).digest()
        keys.append(parent.hex())
    return keys


def is_utf8(text: str) -> bool:
    """False when there are halves of characters in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
