"""How a loop nest walks several arrays at once: pure integers.

A *space* is the shape that all operands are broadcast to, cut into chunks, with each operand's strides through it.
Dimensions are put in the order of the output's memory and joined where every operand allows it, so that a contiguous
array of any rank becomes one long row. Invariant: chunk i of the simplified space holds the same elements as chunk i
of the grid that the caller gave (its numbering survives), so errors name chunks that the user knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shmarray.chunks import ChunkGrid

__all__ = ["Space", "broadcast_strides", "simplify"]


@dataclass(frozen=True, slots=True)
class Space:
    """A chunked iteration space.

    Attributes
    ----------
    grid : ChunkGrid
        Its shape and chunks.
    weights : tuple of int
        The weight of each dimension in the numbering of chunks: chunk index = sum(position * weight).
    strides : tuple of tuple of int
        Bytes from one index to the next, by operand and dimension; 0 where an operand is broadcast.
    """

    grid: ChunkGrid
    weights: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def broadcast_strides(shape: Sequence[int], strides: Sequence[int], to: Sequence[int]) -> tuple[int, ...]:
    """The strides of an array seen in a shape that it broadcasts to.

    Examples
    --------
    >>> broadcast_strides((3, 1), (8, 8), (2, 3, 4))
    (0, 8, 0)
    """
    missing = len(to) - len(shape)
    own = [
        0 if have == 1 and want != 1 else stride
        for have, want, stride in zip(shape, to[missing:], strides, strict=True)
    ]
    return (*(0,) * missing, *own)


def simplify(grid: ChunkGrid, strides: Sequence[Sequence[int]]) -> Space:
    """Order and join the dimensions of a grid; the last operand decides the order.

    Examples
    --------
    >>> simplify(ChunkGrid((4, 6), (2, 6)), [(48, 8), (48, 8)])
    Space(grid=ChunkGrid(shape=(24,), chunks=(12,), counts=(2,)), weights=(1,), strides=((8,), (8,)))
    """
    weights = []
    weight = 1
    for count in reversed(grid.counts):
        weights.append(weight)
        weight *= count
    weights.reverse()
    kept = [axis for axis, extent in enumerate(grid.shape) if extent != 1]
    kept.sort(key=lambda axis: -abs(strides[-1][axis]))  # stable: ties keep C order
    # Each item: extent, chunk, count, weight, strides of all operands.
    joined: list[tuple[int, int, int, int, tuple[int, ...]]] = []
    for axis in kept:
        inner = tuple(operand[axis] for operand in strides)
        extent, chunk, count, weight = grid.shape[axis], grid.chunks[axis], grid.counts[axis], weights[axis]
        if joined:
            outer_extent, outer_chunk, outer_count, outer_weight, outer = joined[-1]
            whole = chunk >= extent  # a cut through the inner dimension would make a chunk of the join a set of rows
            if whole and all(o == i * extent for o, i in zip(outer, inner, strict=True)):
                joined[-1] = (outer_extent * extent, outer_chunk * extent, outer_count, outer_weight, inner)
                continue
        joined.append((extent, chunk, count, weight, inner))
    if not joined:
        joined.append((1, 1, 1, 1, tuple(0 for _ in strides)))
    shape, chunks, _, order, by_axis = zip(*joined, strict=True)
    by_operand = tuple(zip(*by_axis, strict=True))
    return Space(ChunkGrid(shape, chunks), order, by_operand)
