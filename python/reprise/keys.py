r"""Keys of chunks: how a stored chunk is named below the memory tier and between hosts.

    root key  = SHA-256("reprise-root-1\n" + space id, 32 bytes + text(salt) + text(adapter))
    text(x)   = u32 LE length of x in UTF-8 + x in UTF-8
    chunk key = SHA-256(parent key, 32 bytes + tokens, u32 LE each)          (the first chunk's parent is the root)

The rules are in src/cache/chunk.ts; both languages check test/vectors/keys.json. A client does not need them to speak
to a cache (it sends tokens); routers and tools that name chunks do.
"""

import hashlib
import struct

from reprise.tokens import TokenBuffer, token_bytes, token_bytes_each


def root_key(space_id: str, salt: str = "", adapter: str = "") -> str:
    """The key under which the texts of one salt and adapter begin: 64 hexadecimal digits."""
    digest = hashlib.sha256(b"reprise-root-1\n" + bytes.fromhex(space_id))
    for text in (salt, adapter):
        encoded = text.encode()
        digest.update(struct.pack("<I", len(encoded)) + encoded)
    return digest.hexdigest()


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
