"""What a whole-chunk function may ask about the chunk that it was given."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ChunkInfo"]


class ChunkInfo(NamedTuple):
    """Where a chunk is. One entry a dimension, but for `number`.

    The view that the function gets covers `start - before` to `stop + after`; `before` and `after` are the halo, less
    what would lie outside the array.
    """

    number: int
    position: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


# In `help` a field of a named tuple is "Alias for field number 0" unless told otherwise.
for _field, _meaning in {
    "number": "Which chunk it is, counted in C order from 0.",
    "position": "Its place in the grid of chunks, from (0, ...).",
    "start": "The index of its first element in the whole array.",
    "stop": "One past the index of its last element.",
    "before": "How many elements of halo the view has in front of `start`.",
    "after": "How many elements of halo the view has behind `stop`.",
}.items():
    getattr(ChunkInfo, _field).__doc__ = _meaning
