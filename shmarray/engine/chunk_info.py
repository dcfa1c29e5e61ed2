"""What a whole-chunk function may ask about the chunk that it was given."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ChunkInfo"]


class ChunkInfo(NamedTuple):
    """Where a chunk is. One entry a dimension, but for `number`.

    The view that the function gets covers `start - before` to `stop + after`; `before` and `after` are the halo, less
    what would lie outside the array.
    """

    number: int  #: which chunk, counted in C order
    position: tuple[int, ...]  #: its place in the grid of chunks
    start: tuple[int, ...]  #: its first element, in the whole array
    stop: tuple[int, ...]  #: one past its last element
    before: tuple[int, ...]  #: elements of halo in front of it
    after: tuple[int, ...]  #: elements of halo behind it
