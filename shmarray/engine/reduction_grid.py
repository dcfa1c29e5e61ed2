"""Into which parts is an array cut to be reduced, and what does a driver read of it? No numba here, only integers.

Invariant: parts, and the order in which their items are folded, depend on shape, dtype and axes alone. So the bits of a
result depend on no machine, setting, or number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shmarray.engine.job import BlockJob
from shmarray.engine.operands import Array, Operand
from shmarray.engine.plan import Plan

__all__ = [
    "BLOCK_ITEMS_BY_COLUMNS",
    "BLOCK_ITEMS_BY_ROWS",
    "STRIPES",
    "STRIPES_FROM",
    "ReductionShape",
    "block_shape",
    "fold_block",
    "is_striped",
    "plan_block_reduction",
    "plan_reduction",
]

# All of these are part of what a result's bits depend on: changing one changes results.

#: Elements of a chunk of a reduction.
_CHUNK_ITEMS = 1 << 17
#: Accumulators side by side where the last dimension is kept: they stay in the first-level cache.
_COLUMNS = 2048
#: The same where a ready-made loop takes blocks of items.
_BLOCK_COLUMNS = 128
#: Items of one block of a ready-made loop, by whether the last axis is reduced.
BLOCK_ITEMS_BY_ROWS = 8192
BLOCK_ITEMS_BY_COLUMNS = 512
#: Parts of a fold's block that are folded side by side.
STRIPES = 8
#: A shorter block is folded straight.
STRIPES_FROM = 64
_FOLD_BLOCK_ITEMS = 1024
_FOLD_BLOCK_NBYTES = 16 * 1024  # gathered blocks lie on the stack


def fold_block(itemsize: int) -> int:
    """Items of one block of a fold."""
    return max(1, min(_FOLD_BLOCK_ITEMS, _FOLD_BLOCK_NBYTES // max(1, itemsize)))


def is_striped(accumulator: np.dtype[Any]) -> bool:
    """Whether rows are folded in stripes; whole numbers go straight on."""
    return accumulator.kind not in "biu"


@dataclass(frozen=True, slots=True)
class ReductionShape:
    """How an array is reduced: a function of its shape and the axes alone.

    Attributes
    ----------
    kept, reduced : tuple of int
        The axes, in order.
    n_kept, n_reduced : int
        Elements of either.
    kept_step, reduced_step : int
        Elements of a chunk.
    by_rows : bool
        The last axis longer than 1 is reduced.
    """

    kept: tuple[int, ...]
    reduced: tuple[int, ...]
    n_kept: int
    n_reduced: int
    kept_step: int
    reduced_step: int
    by_rows: bool

    @classmethod
    def of(cls, shape: tuple[int, ...], axes: tuple[int, ...]) -> ReductionShape:
        """Of an array of `shape` folded over `axes` (all normalised to 0 and up)."""
        reduced = tuple(sorted(axes))
        kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
        n_kept = math.prod(shape[axis] for axis in kept)
        n_reduced = math.prod(shape[axis] for axis in reduced)
        long = [axis for axis, extent in enumerate(shape) if extent != 1]
        by_rows = not long or long[-1] in reduced
        if by_rows:
            reduced_step = min(max(1, n_reduced), _CHUNK_ITEMS)
            kept_step = max(1, _CHUNK_ITEMS // reduced_step)
        else:
            kept_step = min(max(1, n_kept), _COLUMNS)
            reduced_step = max(1, _CHUNK_ITEMS // kept_step)
        return cls(kept, reduced, n_kept, n_reduced, min(kept_step, max(1, n_kept)), reduced_step, by_rows)

    @property
    def n_ranges(self) -> int:
        """Ranges that the reduced elements are cut into: partial results of each kept element."""
        return -(-self.n_reduced // self.reduced_step)

    @property
    def n_chunks(self) -> int:
        return self.n_ranges * -(-self.n_kept // self.kept_step)

    def down(self) -> ReductionShape:
        """How the partial results, of shape (n_ranges, n_kept), are combined: each column in the order of the grid."""
        return ReductionShape((1,), (0,), self.n_kept, self.n_ranges, self.n_kept, self.n_ranges, by_rows=False)


def block_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> ReductionShape:
    """How an array is reduced by a ready-made loop, block by block: as by folds, but columns are cut into whole
    blocks."""
    how = ReductionShape.of(shape, axes)
    if how.by_rows:
        return how
    kept_step = min(how.kept_step, _BLOCK_COLUMNS)
    return replace(how, kept_step=kept_step, reduced_step=how.kept_step * how.reduced_step // kept_step)


def plan_reduction(
    name: str, kernel: tuple[int, Any], array: Array, partials: Array, how: ReductionShape, *, caller_joins: bool
) -> Plan:
    """A plan that folds an array (`shmarray.engine.reduction`) into `partials` of shape (how.n_ranges, how.n_kept),
    C-contiguous."""
    # What a fold has come to when the caller leaves a chunk half-way: one accumulator, and one a stripe.
    room = [0] * -(-(1 + STRIPES) * partials.itemsize // 8)
    return _plan(name, kernel, array, partials, how, room, caller_joins=caller_joins)


def plan_block_reduction(
    name: str, kernel: tuple[int, Any], array: Array, partials: Array, how: ReductionShape
) -> Plan:
    """A plan that reduces an array block by block (`shmarray.engine.block_reduction`).

    `partials` has the shape (how.n_ranges, how.n_kept, words of a state) and is C-contiguous.
    """
    block = [BLOCK_ITEMS_BY_ROWS if how.by_rows else BLOCK_ITEMS_BY_COLUMNS]
    return _plan(name, kernel, array, partials, how, block, caller_joins=True)


def _plan(
    name: str,
    kernel: tuple[int, Any],
    array: Array,
    partials: Array,
    how: ReductionShape,
    behind: list[int],
    *,
    caller_joins: bool,
) -> Plan:
    operands = [Operand.of(array), Operand.of(partials)]
    kept, reduced = _joined_dimensions(array, how.kept), _joined_dimensions(array, how.reduced)
    words = [how.n_kept, how.kept_step, how.n_reduced, how.reduced_step, 0, len(kept), len(reduced), 0]
    for extent, stride in (*kept, *reduced):
        words += [extent, stride]
    words += behind
    places = ((4, operands[1].place), (7, operands[0].place))
    job = BlockJob(kernel[0], np.array(words, np.int64).tobytes(), places)
    return Plan(name, how.n_chunks, job, operands, in_place=False, caller_joins=caller_joins, kernels=[kernel])


def _joined_dimensions(array: Array, axes: Sequence[int]) -> list[tuple[int, int]]:
    """Extents and strides of some axes in C order, joined where memory runs on; at least one."""
    dimensions: list[tuple[int, int]] = []
    for axis in axes:
        extent, stride = array.shape[axis], array.strides[axis]
        if extent == 1:
            continue
        if dimensions and dimensions[-1][1] == extent * stride:
            dimensions[-1] = (dimensions[-1][0] * extent, stride)
        else:
            dimensions.append((extent, stride))
    return dimensions or [(1, 0)]
