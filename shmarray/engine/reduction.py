"""The driver of folds: each chunk of a fixed grid becomes a partial result; partials are combined in grid order.

An array of any rank is seen as kept elements times reduced elements, both numbered in C order. A chunk is a range of
each; chunk c covers kept range c % n and reduced range c // n. Its partials go to row c // n of an array (reduced
ranges, kept elements).

The block of numbers that a driver reads (64-bit words)::

    0    kept elements, kept a chunk, reduced elements, reduced a chunk
    4    address of the partials (C-contiguous)
    5    number of kept dimensions k, number of reduced dimensions r, address of the array
    8    extent and stride of each kept dimension, then of each reduced one; inner dimensions last

Invariant: which elements are folded in which order depends on these numbers alone, and these (see `plan_reduction`) on
shape, dtype and axis alone. So the bits of a result depend on no machine, setting, or number of workers.
Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.np.numpy_support import as_dtype

from shmarray import jit
from shmarray.engine.memory import read_word, view
from shmarray.pool.atomics import monotonic_ns
from shmarray.pool.dispatch import claim, finish, over_budget

__all__ = ["make_column_driver", "make_row_driver"]

_STRIPES_FROM = 64  # a shorter row is folded straight


def make_row_driver(
    fold: Any, combine: Any, identity: Any, item: types.Type, accumulator: types.Type
) -> Callable[[int, int, int, int], int]:
    """For arrays whose last dimension is reduced: fold along rows.

    A row of floating-point numbers is cut into eight stripes that are folded side by side (the processor overlaps eight
    chains of dependent operations) and combined in order; so `combine` needs to be associative, and nothing needs to
    commute. Folds of whole numbers go straight on: there the compiler itself may reorder, and makes vector code of a
    plain loop where it can.
    """
    import numba

    items = view(item, 1, "A", True)
    packed_items = view(item, 1, "C", True)
    partials_view = view(accumulator, 1, "C", False)
    compiled = numba.njit(**jit.options())
    cast = _make_cast(accumulator)
    offset_of = _make_offset()
    acc_size, item_size = as_dtype(accumulator).itemsize, as_dtype(item).itemsize
    striped = not isinstance(accumulator, types.Integer | types.Boolean)

    @compiled
    def fold_row(x, first, n, acc):  # type: ignore[no-untyped-def]
        done = first
        if striped and n >= _STRIPES_FROM:
            m = n // 8
            a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = cast(identity)
            for i in range(first, first + m):
                a0 = cast(fold(a0, x[i]))
                a1 = cast(fold(a1, x[i + m]))
                a2 = cast(fold(a2, x[i + 2 * m]))
                a3 = cast(fold(a3, x[i + 3 * m]))
                a4 = cast(fold(a4, x[i + 4 * m]))
                a5 = cast(fold(a5, x[i + 5 * m]))
                a6 = cast(fold(a6, x[i + 6 * m]))
                a7 = cast(fold(a7, x[i + 7 * m]))
            left = cast(combine(cast(combine(a0, a1)), cast(combine(a2, a3))))
            right = cast(combine(cast(combine(a4, a5)), cast(combine(a6, a7))))
            acc = cast(combine(acc, cast(combine(left, right))))
            done = first + 8 * m
        for i in range(done, first + n):
            acc = cast(fold(acc, x[i]))
        return acc

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        started = monotonic_ns()
        n_kept, kept_step = read_word(block, 0), read_word(block, 1)
        n_reduced, reduced_step = read_word(block, 2), read_word(block, 3)
        n_kept_dims, n_reduced_dims, array = read_word(block, 5), read_word(block, 6), read_word(block, 7)
        n_ranges = -(-n_kept // kept_step)
        reduced_dims = block + 8 * (8 + 2 * n_kept_dims)
        row_extent = read_word(reduced_dims, 2 * (n_reduced_dims - 1))
        row_stride = read_word(reduced_dims, 2 * (n_reduced_dims - 1) + 1)
        while True:
            index = claim(page, lane)
            if index < 0:
                return 0
            kept_first = index % n_ranges * kept_step
            kept_stop = min(n_kept, kept_first + kept_step)
            reduced_first = index // n_ranges * reduced_step
            reduced_stop = min(n_reduced, reduced_first + reduced_step)
            row = index // n_ranges * n_kept
            partials = partials_view(read_word(block, 4), ((row + kept_stop),), (acc_size,))
            for kept in range(kept_first, kept_stop):
                start = array + offset_of(block + 64, n_kept_dims, kept)
                acc = cast(identity)
                here = reduced_first
                while here < reduced_stop:
                    column = here % row_extent
                    n = min(row_extent - column, reduced_stop - here)
                    address = start + offset_of(reduced_dims, n_reduced_dims - 1, here // row_extent)
                    if row_stride == item_size:  # told to the compiler, which can load whole vectors then
                        acc = fold_row(packed_items(address, (column + n,), (item_size,)), column, n, acc)
                    else:
                        acc = fold_row(items(address, (column + n,), (row_stride,)), column, n, acc)
                    here += n
                partials[row + kept] = acc
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


def make_column_driver(
    fold: Any, identity: Any, item: types.Type, accumulator: types.Type
) -> Callable[[int, int, int, int], int]:
    """For arrays whose last dimension is kept: fold row by row into a row of accumulators."""
    items = view(item, 1, "A", True)
    packed_items = view(item, 1, "C", True)
    partials_view = view(accumulator, 1, "C", False)
    cast = _make_cast(accumulator)
    offset_of = _make_offset()
    acc_size, item_size = as_dtype(accumulator).itemsize, as_dtype(item).itemsize

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        started = monotonic_ns()
        n_kept, kept_step = read_word(block, 0), read_word(block, 1)
        n_reduced, reduced_step = read_word(block, 2), read_word(block, 3)
        n_kept_dims, n_reduced_dims, array = read_word(block, 5), read_word(block, 6), read_word(block, 7)
        n_ranges = -(-n_kept // kept_step)
        reduced_dims = block + 8 * (8 + 2 * n_kept_dims)
        row_extent = read_word(block, 8 + 2 * (n_kept_dims - 1))
        row_stride = read_word(block, 8 + 2 * (n_kept_dims - 1) + 1)
        while True:
            index = claim(page, lane)
            if index < 0:
                return 0
            kept_first = index % n_ranges * kept_step
            kept_stop = min(n_kept, kept_first + kept_step)
            reduced_first = index // n_ranges * reduced_step
            reduced_stop = min(n_reduced, reduced_first + reduced_step)
            partials = read_word(block, 4) + index // n_ranges * n_kept * acc_size
            kept = kept_first
            while kept < kept_stop:  # a stretch within one row of the last kept dimension
                column = kept % row_extent
                n = min(row_extent - column, kept_stop - kept)
                start = array + offset_of(block + 64, n_kept_dims - 1, kept // row_extent) + column * row_stride
                accs = partials_view(partials + kept * acc_size, (n,), (acc_size,))
                for j in range(n):
                    accs[j] = cast(identity)
                for reduced in range(reduced_first, reduced_stop):
                    address = start + offset_of(reduced_dims, n_reduced_dims, reduced)
                    if row_stride == item_size:
                        packed = packed_items(address, (n,), (item_size,))
                        for j in range(n):
                            accs[j] = cast(fold(accs[j], packed[j]))
                    else:
                        x = items(address, (n,), (row_stride,))
                        for j in range(n):
                            accs[j] = cast(fold(accs[j], x[j]))
                kept += n
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


def _make_offset() -> Any:
    """A compiled function (dimensions, how many, flat index) -> offset in bytes; dimensions are (extent, stride)
    words."""
    import numba

    @numba.njit(**jit.options())
    def offset(dims, n_dims, index):  # type: ignore[no-untyped-def]
        total = 0
        for back in range(n_dims):
            d = n_dims - 1 - back
            extent = read_word(dims, 2 * d)
            total += index % extent * read_word(dims, 2 * d + 1)
            index //= extent
        return total

    return offset


def _make_cast(accumulator: types.Type) -> Any:
    """A compiled cast to the accumulator's type."""
    from numba.extending import intrinsic

    @intrinsic
    def cast(typingctx, value):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return context.cast(builder, args[0], signature.args[0], accumulator)

        return accumulator(value), codegen

    return cast
