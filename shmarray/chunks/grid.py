"""Which part of an array is chunk number i?

A grid is a shape and the shape of one chunk. Chunks are numbered in C order; those at the far edges are cut
short. Invariant: the chunks of a grid cover every element exactly once.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ChunkGrid", "normalize_chunks"]


@dataclass(frozen=True, slots=True)
class ChunkGrid:
    """A shape cut into boxes of equal shape.

    Parameters
    ----------
    shape : tuple of int
        The array's shape; any extent may be 0, and then there is no chunk.
    chunks : tuple of int
        The shape of one chunk, at least 1 in each dimension.

    Examples
    --------
    >>> grid = ChunkGrid((5, 4), (2, 4))
    >>> len(grid), grid.counts
    (3, (3, 1))
    >>> grid.slices(2)
    (slice(4, 5, None), slice(0, 4, None))
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    counts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.chunks):
            raise ValueError(f"chunks {self.chunks} must have one entry a dimension of shape {self.shape}")
        if any(extent < 0 for extent in self.shape) or any(chunk < 1 for chunk in self.chunks):
            raise ValueError(f"shape {self.shape} must not be negative and chunks {self.chunks} be at least 1")
        counts = tuple(-(-extent // chunk) for extent, chunk in zip(self.shape, self.chunks, strict=True))
        object.__setattr__(self, "counts", counts)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def position(self, index: int) -> tuple[int, ...]:
        """Where chunk `index` stands in the grid, one integer a dimension."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"chunk {index} is not in a grid of {len(self)} chunks")
        position = []
        for count in reversed(self.counts):
            index, here = divmod(index, count)
            position.append(here)
        return tuple(reversed(position))

    def slices(self, index: int) -> tuple[slice, ...]:
        """The part of the array that chunk `index` is, as slices with explicit ends."""
        return tuple(
            slice(here * chunk, min((here + 1) * chunk, extent))
            for here, chunk, extent in zip(self.position(index), self.chunks, self.shape, strict=True)
        )

    def __iter__(self) -> Iterator[tuple[slice, ...]]:
        return (self.slices(index) for index in range(len(self)))


def normalize_chunks(
    chunks: int | Sequence[int] | str | None, shape: tuple[int, ...], itemsize: int, chunk_nbytes: int
) -> tuple[int, ...]:
    """The shape of one chunk, from what a user asked for.

    None cuts along the leading dimensions, so that a chunk is one run of memory of about `chunk_nbytes`
    bytes; an integer is the extent along the first dimension; a sequence gives one extent a dimension, where
    -1 stands for the whole dimension.

    Examples
    --------
    >>> normalize_chunks(None, (1000, 1000), 8, 80_000)
    (10, 1000)
    >>> normalize_chunks(None, (4, 1000), 8, 800)
    (1, 100)
    >>> normalize_chunks(7, (20, 3), 8, 1)
    (7, 3)
    >>> normalize_chunks((-1, 2), (20, 3), 8, 1)
    (20, 2)
    """
    if chunks is None:
        return _contiguous_chunks(shape, max(1, chunk_nbytes // max(1, itemsize)))
    given = chunks
    if not isinstance(chunks, Sequence):
        chunks = (_index(chunks, given), *(-1 for _ in shape[1:]))
        if not shape:
            raise ValueError("an array without dimensions takes no chunk extent; leave chunks out")
    if isinstance(chunks, str | bytes):
        raise TypeError(f"{_EXPECTED}; got {given!r}")
    if len(chunks) != len(shape):
        raise ValueError(f"chunks must have one extent for each of {len(shape)} dimensions; got {given!r}")
    normal = []
    for chunk, extent in zip(chunks, shape, strict=True):
        chunk = _index(chunk, given)
        if chunk < -1 or chunk == 0:
            raise ValueError(f"{_EXPECTED}, each at least 1, or -1 for the whole; got {given!r}")
        normal.append(max(1, extent) if chunk == -1 else min(chunk, max(1, extent)))
    return tuple(normal)


_EXPECTED = "chunks must be an integer or a sequence of integers"


def _index(chunk: Any, given: Any) -> int:
    try:
        return operator.index(chunk)
    except TypeError:
        raise TypeError(f"{_EXPECTED}; got {given!r}") from None


def _contiguous_chunks(shape: tuple[int, ...], items: int) -> tuple[int, ...]:
    chunks = []
    below = math.prod(shape)
    for extent in shape:
        below = below // extent if extent else 0
        if below >= items:  # even one step along this dimension is enough for a chunk
            chunks.append(1)
            continue
        chunk = max(1, min(extent, items // max(1, below)))
        chunks.append(chunk)
        items = max(1, below)  # what is further in is taken whole
    return tuple(chunks)
