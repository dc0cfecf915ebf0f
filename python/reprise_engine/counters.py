"""What has happened, by name: the connector's own figures, beside those of its links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

#: Every name, as the engine's metrics explain it.
meanings: Mapping[str, str] = {
    "lookups": "Requests for which the cache was asked to load.",
    "loaded_tokens": "Tokens loaded within the step that needed them, from the cache's memory.",
    "async_loaded_tokens": "Tokens loaded between steps, because some of them came from disk.",
    "skipped_tokens": "Tokens that lie on disk and were faster to compute.",
    "misses_known_early": "Requests of which the cache had said, while they waited, that nothing is stored.",
    "asked_elsewhere": "Requests that waited in the queue while shared stores were asked for what this host lacks.",
    "asked_elsewhere_late": "Those of them that went on without an answer, since there was none in time.",
    "misses_late": "Requests that were computed because the cache did not answer in time.",
    "misses_refused": "Requests that were computed because the link or the cache refused the question.",
    "misses_link_down": "Requests that were computed because there was no connection to the cache.",
    "requests_skipped": "Requests that cannot use the cache: multimodal, with embeddings, pooling, an unknown adapter.",
    "requests_unreadable": "Requests whose salt, tokens or own wishes could not be read: they went without the cache.",
    "failed_loads": "Loads that the workers could not do; their tokens were computed.",
    "unfinished_loads": "Loads from disk that ended before all was there; the rest was computed.",
    "lost_loads": "Loads that could not be begun after the engine had allocated their blocks; they were computed.",
    "saved_bytes": "Bytes of KV given to the cache, all ranks.",
    "saves_refused": "Saves that the link or the cache refused.",
    "saves_dropped": "Saves given up because too many were under way, or their blocks were gone.",
    "failed_saves": "Saves that the workers could not do.",
    "tainted_saves": "Saves given up because they may have been computed on blocks whose load had failed.",
    "late_handovers": "Prompts that another engine handed over later than it may have kept them; they are not stored.",
}


class Counters:
    """Names are made by their first use."""

    def __init__(self) -> None:
        #: Until the last `taken`, and since.
        self._told: Counter[str] = Counter()
        self._fresh: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        self._fresh[name] += count

    def __getitem__(self, name: str) -> int:
        return self._told[name] + self._fresh[name]

    def taken(self) -> dict[str, int]:
        """The counts since the last call."""
        if not self._fresh:  # asked in every step
            return {}
        self._told += self._fresh
        taken, self._fresh = dict(self._fresh), Counter()
        return taken

    def all(self) -> dict[str, int]:
        return dict(self._told + self._fresh)
