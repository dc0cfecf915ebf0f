"""What docs/python.md takes as given for engines: a cache, a model's description, and the sizes of its payloads."""

import os
from array import array

import reprise
from reprise import CacheLink as _CacheLink
from reprise import SpaceDescription

path = str(reprise.start_cache(memory="256MiB", disk="256MiB").socket_path)
model = {
    **{"engine": "my-engine", "payload_format": 1, "weights": "00", "key_type": "f16", "value_type": "f16", "layers": 1},
    **{"key_value_heads": 1, "key_size": 8, "value_size": 8, "layout": "token-major", "attention": "dense", "rope": ""},
    **{"tensor_parallel": 1, "chunk_tokens": 16},
}
tokens = array("I", range(40))
rows_bytes, state_bytes = 16 * 32, 4096


class CacheLink(_CacheLink):
    """Connected, as an engine's loop has it; what is asked must not have been refused."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        assert self.connect(10), self.last_error

    def reserve(self, *given: object) -> None:
        pending = super().reserve(*given)
        missing = [0, 0, 0, 1] if os.environ["WALK_TIME"] == "first" else []
        assert self.wait(pending, 10) and [part.group for part in pending.parts] == missing
        if missing:
            assert self.wait(self.commit([(part.lease, part.bytes) for part in pending.parts]), 10)

    def load(self, *given: object) -> None:
        pending = super().load(*given)
        assert self.wait(pending, 10) and [part.group for part in pending.parts] == [0, 0, 0, 1]
