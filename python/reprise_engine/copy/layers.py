"""Loads layer by layer: a forward pass may read the first layers while the link still brings the last ones.

    link        ═ group 0 of all chunks ═│═══ group 1 ═══│══ group 2 ══│ 3 │
    compute        waits ─► layers of 0 … waits ─► layers of 1 …         waits ─► layers of 3

The link takes longer than the layers, so what is left of the pass once the last byte has arrived is the last group's
layers: that group is the smallest. The first is small too, for passes that compute more than the link takes.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from reprise_engine.copy.layout import Layout

#: Where the groups end, in eighths of the payload.
GROUP_ENDS = (2, 5, 7, 8)
#: Smaller copies than this would slow the link down: groups that would need them are joined.
MIN_COPY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LayerGroups:
    #: Segments of each group, [begin, end), in payload order, and complete.
    spans: tuple[tuple[int, int], ...]
    #: The last group that a layer needs, by the layer's name.
    of_layer: Mapping[str, int]


def group_layers(layout: Layout, chunk_blocks: int) -> LayerGroups | None:
    """Groups for chunks of that many blocks; None when one is all there can be."""
    borders = sorted({end for _, end in layout.layers.values()})
    reached = [int(layout.starts[end - 1] + layout.runs[end - 1]) for end in borders]
    ends: list[int] = []
    begin = 0
    for eighths in GROUP_ENDS[:-1]:
        i = bisect.bisect_left(reached, layout.block_bytes * eighths // GROUP_ENDS[-1])
        far_enough = (reached[i] - begin) * chunk_blocks >= MIN_COPY_BYTES
        if far_enough and (layout.block_bytes - reached[i]) * chunk_blocks >= MIN_COPY_BYTES:
            ends.append(borders[i])
            begin = reached[i]
    if not ends:
        return None
    ends.append(int(layout.runs.size))
    of_layer = {name: bisect.bisect_left(ends, end) for name, (_, end) in layout.layers.items()}
    return LayerGroups(tuple(zip([0, *ends[:-1]], ends, strict=True)), of_layer)


class LayerWaits:
    """Lets the compute stream wait for a load group by group, in any order of the layers."""

    def __init__(
        self, groups: LayerGroups, events: Sequence[torch.cuda.Event], stream: Callable[[], torch.cuda.Stream]
    ) -> None:
        """`events`: the arrival of each group. `stream`: the one that computes now."""
        self._groups = groups
        self._events = events
        self._stream = stream
        #: (stream, group) that have been ordered.
        self._waited: set[tuple[int, int]] = set()
        self._left = set(groups.of_layer)

    def wait(self, layer: str) -> None:
        """Whatever is enqueued from here on may read this layer's blocks."""
        group = self._groups.of_layer.get(layer)
        if group is None:
            return
        stream = self._stream()
        if (stream.cuda_stream, group) not in self._waited:
            stream.wait_event(self._events[group])
            self._waited.add((stream.cuda_stream, group))
        self._left.discard(layer)

    def finish(self) -> bool:
        """Waits for all of it. False when some layer had not been waited for: the pass may have read it too early."""
        if not self._left:
            return True
        self._stream().wait_event(self._events[-1])
        return False
