"""The cache for research code: what is known of a text, its KV as arrays, and keeping what was computed.

    cache = reprise.connect(model="my-model Q8", dtype="float16", token_shape=(32, 2, 8, 128))
    with cache.load(tokens) as known:                       # grab what was read before
        for chunk in known.chunks:
            engine.restore(chunk.first_token, chunk.array)  # [tokens, *token_shape], over the cache's own memory
    cache.save(tokens, kv)                                  # keep what was read now: [len(tokens), *token_shape]

A cache that is slow, full or gone is a miss: no verb raises for it, and the connection is made again by itself. Use one
`Cache` per thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from reprise.errors import RepriseError
from reprise.link import CacheLink
from reprise.pool import Pool
from reprise.rows import ReservedPart
from reprise.space import SpaceDescription, groups_of
from reprise.token_format import TokenFormat
from reprise.tokens import TokenIds, pack_tokens, token_bytes_each

if TYPE_CHECKING:
    import numpy
    import torch
    from typing_extensions import Self


class Hit(NamedTuple):
    """How much of a text is stored, counted token by token from its start."""

    tokens: int
    #: The same tokens by the tier they would come from: {"memory": 512, "disk": 100}.
    by_tier: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LoadedPayload:
    """The KV of a run of the text's tokens, in the cache's own memory. To be read before the text is released."""

    #: Position of the first token in the text, and how many there are.
    first_token: int
    tokens: int
    #: Where it was found: "memory" or "disk".
    tier: str
    #: Those tokens' bytes. Not to be written to.
    bytes: memoryview
    _format: TokenFormat

    @property
    def array(self) -> numpy.ndarray[Any, Any]:
        """Shape [tokens, *token_shape], read-only, no copy. Types that NumPy lacks (bfloat16, float8): raw bits."""
        return self._format.array(self.bytes, self.tokens)

    def tensor(self) -> torch.Tensor:
        """The same as a CPU tensor over the same memory, in its own type. Not to be written to."""
        return self._format.tensor(self.bytes, self.tokens)


class LoadedText:
    """What is known of a text. Its chunks stay in place until it is released, by hand or by `with`."""

    def __init__(self, link: CacheLink, leases: Sequence[int], chunks: Sequence[LoadedPayload]) -> None:
        #: In order of position; the first begins at 0, or at the chunk that contains `from_token`.
        self.chunks = chunks
        self._link = link
        self._leases = leases

    @property
    def hit_tokens(self) -> int:
        """Tokens from the start of the text whose KV need not be computed again."""
        return 0 if not self.chunks else self.chunks[-1].first_token + self.chunks[-1].tokens

    def is_held(self) -> bool:
        """True while the cache keeps every chunk in its place.

        Ask it after copying out of the chunks: when the cache has ended or the connection broke meanwhile, what was
        copied may be another text's and counts for nothing.
        """
        self._link.poll()
        return all(self._link.holds(lease) for lease in self._leases)

    def release(self) -> None:
        """Lets the chunks go; their arrays must not be touched any more. Without effect the second time."""
        self._link.release(self._leases)
        self._leases = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


#: The KV of a whole text, or a function that makes that of `token_count` tokens from position `first_token`.
Kv = Any | Callable[[int, int], Any]


class Cache:
    """The cache, for texts of one space, salt and adapter, over a link of its own. Made by `connect`."""

    def __init__(
        self, link: CacheLink, token_format: TokenFormat, *, salt: str, adapter: str, deadline_ms: float
    ) -> None:
        #: The link, with its counters.
        self.link = link
        self.token_format = token_format
        self._salt = salt
        self._adapter = adapter
        self._deadline_ms = deadline_ms
        self._pool: Pool | None = None

    @property
    def chunk_tokens(self) -> int:
        """Tokens per chunk, the unit of storing; the last one of a text may be shorter."""
        return self.link.space.chunk_tokens

    def lookup(self, tokens: TokenIds) -> Hit:
        """How much of a text is stored, and where. Moves nothing.

        `tokens`: token ids, any run of whole numbers; a buffer of u32 (array("I"), NumPy uint32) is not copied.
        """
        self._connect_again()
        pending = self.link.lookup(pack_tokens(tokens), self._salt, self._adapter, self._deadline_ms)
        if pending is None or not self.link.wait(pending, self._deadline_ms / 1000):
            return Hit(0, {})
        return Hit(pending.hit_tokens, pending.tokens_by_tier)

    def prefetch(self, tokens: TokenIds) -> int:
        """Brings what is stored of a text, on this host or in a shared store, into memory, for a load that will come.

        Returns how many tokens from its start are there now. Interrupted (by Ctrl-C), it ends the cache's work too.
        """
        self._connect_again()
        pending = self.link.prefetch(pack_tokens(tokens), self._salt, self._adapter, self._deadline_ms)
        if pending is None:
            return 0
        try:
            self.link.wait(pending, self._deadline_ms / 1000)
        except BaseException:
            self.link.cancel(pending)
            raise
        return pending.ready_tokens

    def load(self, tokens: TokenIds, *, from_token: int = 0) -> LoadedText:
        """Fetches what is known of a text, as far as it is there in time.

        `from_token`: what lies before the chunk that contains this position is left out.
        """
        self._connect_again()
        packed = pack_tokens(tokens)
        pending = self.link.load(packed, self._salt, self._adapter, from_token, False, self._deadline_ms)
        if pending is None:
            return LoadedText(self.link, (), ())
        self.link.wait(pending, self._deadline_ms / 1000 + 1)
        pool = self._mapped_pool()
        leases: list[int] = []
        chunks: list[LoadedPayload] = []
        for part in pending.parts:  # a chunk has one: its group's of rows
            is_whole = part.bytes == part.token_count * self.token_format.token_bytes
            if pool is None or part.kind != "exact" or not is_whole or not self.link.holds(part.lease):
                break
            token_bytes = self.token_format.token_bytes
            payload = pool.slot(part.offset + part.skip * token_bytes, part.take * token_bytes)
            leases.append(part.lease)
            chunks.append(LoadedPayload(part.target, part.take, part.tier, payload, self.token_format))
        self.link.release(part.lease for part in pending.parts[len(leases) :])
        return LoadedText(self.link, leases, chunks)

    def save(self, tokens: TokenIds, kv: Kv) -> int:
        """Stores what is not stored yet of a text.

        `kv`: an array of shape [len(tokens), *token_shape] (NumPy, torch on any device, or a buffer of bytes), or a
        function (first_token, token_count) that returns [token_count, *token_shape], called for each chunk that is
        missing.

        Returns the tokens stored by this call: 0 when all were there; fewer than were missing when the cache is full
        of chunks in use or is gone. Raises RepriseError BAD_REQUEST when `kv` has another shape, type or length, and
        whatever a function raises; the chunks before it are stored.
        """
        packed = pack_tokens(tokens)
        token_count = packed.nbytes // token_bytes_each
        if token_count == 0:
            return 0
        rows = None if callable(kv) else self.token_format.rows(kv, token_count)
        self._connect_again()
        pending = self.link.reserve(packed, self._salt, self._adapter, self._deadline_ms)
        if pending is None or not self.link.wait(pending, self._deadline_ms / 1000):
            return 0
        written: list[tuple[int, int]] = []
        saved_tokens = 0
        try:
            for part in pending.parts:
                if rows is not None:
                    first_byte = part.first_token * self.token_format.token_bytes
                    payload = rows[first_byte : first_byte + part.token_count * self.token_format.token_bytes]
                else:
                    payload = self.token_format.rows(kv(part.first_token, part.token_count), part.token_count)
                if not self._write(part, payload):
                    break
                written.append((part.lease, payload.nbytes))
                saved_tokens += part.token_count
        finally:
            commit = self.link.commit(written, self._deadline_ms)
            self.link.abandon(part.lease for part in pending.parts[len(written) :])
        is_kept = commit is not None and self.link.wait(commit, self._deadline_ms / 1000) and not commit.failed
        return saved_tokens if is_kept else 0

    def stats(self) -> Mapping[str, Any]:
        """The cache's figures (hits, bytes by tier, …) as a plain dict; empty when it does not answer."""
        self._connect_again()
        pending = self.link.stats(self._deadline_ms)
        if pending is None:
            return {}
        self.link.wait(pending, self._deadline_ms / 1000)
        return pending.stats

    def close(self) -> None:
        """Ends the link; every lease falls. Arrays over the pool must not be touched any more."""
        self.link.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect_again(self) -> None:
        """Tries a lost connection again: without waiting for a cache that is gone, but for a handshake under way."""
        self.link.poll()
        if self.link.state == "handshake":
            self.link.connect(self._deadline_ms / 1000)

    def _write(self, part: ReservedPart, payload: memoryview) -> bool:
        """Copies into a slot that is surely still ours: making the payload may have taken long."""
        self.link.poll()
        pool = self._mapped_pool() if self.link.holds(part.lease) else None
        if pool is None:
            return False
        pool.slot(part.offset, payload.nbytes)[:] = payload
        return True

    def _mapped_pool(self) -> Pool | None:
        """The present connection's pool; None when its cache has just ended."""
        if self._pool is None or self._pool.path != self.link.pool_path:
            if self._pool is not None:
                self._pool.close()
            self._pool = None
            with suppress(RepriseError):
                self._pool = Pool(self.link.pool_path, self.link.pool_bytes)
        return self._pool


def connect(
    *,
    dtype: str,
    token_shape: tuple[int, ...],
    model: str = "",
    engine: str = "python",
    chunk_tokens: int = 256,
    space: SpaceDescription | None = None,
    socket: str | os.PathLike[str] | None = None,
    token: str = "",
    salt: str = "",
    adapter: str = "",
    tenant: str | None = None,
    deadline_ms: float = 10_000,
    timeout: float = 5.0,
) -> Cache:
    """Connects to the cache of this host.

    dtype: element type of the KV, for example "float16" or "bfloat16".
    token_shape: shape of one token's KV, for example (layers, 2, heads, head_size). A chunk's payload has shape
        [chunk_tokens, *token_shape] in C order, and at most 64 MiB.
    model, engine: names for everything that changes the bytes: weights, precision, RoPE, your code's version. Texts
        that were saved under other names, another dtype, shape or chunk size are not found.
    space: instead of the two names, a whole description, to share chunks with other programs. It has one group of rows.
    socket: where the cache listens; ~/.reprise/cache.sock unless given here or in REPRISE_SOCKET.
    token: what the cache asks its guests for, if it does.
    salt, adapter: texts of one salt (a tenant) and adapter (a LoRA) are invisible to every other. Both may be any text.
    tenant: whose share of the memory they take, when it has several salts; unless given, each salt has its own share.
    deadline_ms: what does not come within this time is a miss.
    timeout: seconds that the cache may take to answer the first time.

    Raises RepriseError CACHE_UNAVAILABLE when nobody answers in time (`reprise.start_cache` starts one), BAD_REQUEST
    for a token format that cannot be and a space of other groups, and the cache's own code when it refuses.
    """
    token_format = TokenFormat(dtype, token_shape)
    for name, text in (("salt", salt), ("adapter", adapter)):
        if not isinstance(text, str):
            raise RepriseError("BAD_REQUEST", f"{name} must be a text, not {type(text).__name__}")
    if space is None:
        if not model:
            raise RepriseError("BAD_REQUEST", "connect needs a model name, or a whole space")
        space = _named_space(engine, model, token_format, chunk_tokens)
    elif groups_of(space) != ("rows",):
        raise RepriseError("BAD_REQUEST", "connect needs a space of one group of rows; others take a CacheLink")
    link = CacheLink(
        socket_path=str(default_socket() if socket is None else Path(socket).expanduser()),
        space=space,
        rank=0,
        slot_bytes=[token_format.token_bytes * space.chunk_tokens],
        token=token,
        tenant=tenant,
        model=model[:100],
    )
    if not link.connect(timeout):
        link.close()
        if isinstance(link.last_error, RepriseError):
            raise link.last_error
        raise RepriseError("CACHE_UNAVAILABLE", f"no cache answered on {link.socket_path} within {timeout:g} s")
    return Cache(link, token_format, salt=salt, adapter=adapter, deadline_ms=deadline_ms)


def default_socket() -> Path:
    """Where a cache of this user listens: REPRISE_SOCKET, or cache.sock in REPRISE_DATA_DIR or ~/.reprise."""
    given = os.environ.get("REPRISE_SOCKET", "")
    return Path(given).expanduser() if given else default_data_dir() / "cache.sock"


def default_data_dir() -> Path:
    """Where this user's cache keeps its files: REPRISE_DATA_DIR, or ~/.reprise."""
    return Path(os.environ.get("REPRISE_DATA_DIR", "") or "~/.reprise").expanduser()


def _named_space(engine: str, model: str, token_format: TokenFormat, chunk_tokens: int) -> SpaceDescription:
    """A space for payloads of which names and the token format alone are known: they stand for everything else."""
    return SpaceDescription(
        engine=engine,
        payload_format=1,
        weights=hashlib.sha256(model.encode()).hexdigest(),
        key_type=token_format.dtype,
        value_type=token_format.dtype,
        layers=0,
        key_value_heads=0,
        key_size=0,
        value_size=0,
        layout="token-major " + "x".join(map(str, token_format.token_shape)),
        attention="",
        rope="",
        tensor_parallel=1,
        chunk_tokens=chunk_tokens,
    )
