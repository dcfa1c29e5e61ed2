"""The driver of ready-made reductions: hand a loop of `shmarray.kernels` one block of items after another.

The block of numbers that it reads is that of `shmarray.engine.reduction`, with the items of a block behind it, and the
grid of chunks is the same too. A chunk's items are taken in blocks of C order whose sizes depend on the grid alone;
where they do not lie side by side they are gathered first. So the bits of a result depend on shape, dtype and axis,
never on strides, machine or workers.

Where the last axis is kept, the items of one kept element lie far apart: a tile of neighbouring kept elements is
gathered at once, a cache line at a time. Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype

from shmarray import jit
from shmarray.engine.calls import emit_call, resolve
from shmarray.engine.memory import array_view, kept_apart, plain_integer, read_word, reserve_words
from shmarray.engine.reduction import PLACE_WORDS, locate, make_gather, offset_of
from shmarray.engine.reduction_grid import BLOCK_ITEMS_BY_COLUMNS, BLOCK_ITEMS_BY_ROWS
from shmarray.kernels.vectors import wide_vectors
from shmarray.pool.atomics import copy_bytes, monotonic_ns
from shmarray.pool.dispatch import claim, finish, over_budget

__all__ = ["make_driver"]

_TILE_ITEMS = BLOCK_ITEMS_BY_COLUMNS
_TILE_WIDTH = 16  # kept elements: two cache lines of float64
_PITCH = _TILE_ITEMS + 8  # not a power of two: columns of a tile would displace each other from the cache
_compiled = numba.njit(**jit.options())


def make_driver(
    accumulate: Any, item: types.Type, state: types.Type, n_words: int
) -> Callable[[int, int, int, int], int]:
    """A driver, to be compiled for four int64 arguments (page, block, lane, budget in nanoseconds).

    Parameters
    ----------
    accumulate : numba dispatcher
        `accumulate(state, x, first, fresh)`: take the block `x`, whose first item is number `first` of the reduced
        ones, into `state`, an array of `n_words`; `fresh` is true for a chunk's first block, when the state holds
        nothing yet.
    item : type
        Of the array's items.
    state : type
        float64, int64 or uint64.
    n_words : int
    """
    item_size = as_dtype(item).itemsize
    take = _make_take(accumulate, item, state, n_words)
    gather, gather_tile = make_gather(item_size), _make_gather_tile(item_size)
    reserve = reserve_words(PLACE_WORDS)
    reserve_buffer = reserve_words(-(-max(_TILE_WIDTH * _PITCH, BLOCK_ITEMS_BY_ROWS) * item_size // 8))
    state_nbytes = 8 * n_words

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        wide_vectors()
        started = monotonic_ns()
        n_kept_dims, n_reduced_dims, array = read_word(block, 5), read_word(block, 6), read_word(block, 7)
        reduced_dims = block + 8 * (8 + 2 * n_kept_dims)
        kept_extent, kept_stride = read_word(reduced_dims, -2), read_word(reduced_dims, -1)
        row_extent = read_word(reduced_dims, 2 * n_reduced_dims - 2)
        row_stride = read_word(reduced_dims, 2 * n_reduced_dims - 1)
        block_items = read_word(reduced_dims, 2 * n_reduced_dims)
        by_tiles = block_items <= _TILE_ITEMS and row_stride != item_size
        place, buffer = reserve(), reserve_buffer()
        while True:
            index = claim(page, lane)
            if index < 0:
                return 0
            locate(block, place, index, plain_integer(state_nbytes))
            kept, kept_stop, partials = read_word(place, 0), read_word(place, 1), read_word(place, 4)
            first, stop = read_word(place, 2), read_word(place, 3)
            while kept < kept_stop:
                start = array + offset_of(block + 64, n_kept_dims, kept)
                width = 1
                if by_tiles:
                    width = min(_TILE_WIDTH, kept_stop - kept, kept_extent - kept % kept_extent)
                states = partials + kept * state_nbytes
                here = first
                while here < stop:
                    n = min(block_items, stop - here)
                    if width > 1:
                        gather_tile(buffer, start, kept_stride, reduced_dims, n_reduced_dims, here, n, width)
                        for k in range(width):
                            x = buffer + k * _PITCH * item_size
                            take(states + k * state_nbytes, x, n, here, here == first)
                    else:
                        x = start + offset_of(reduced_dims, n_reduced_dims, here)
                        if row_stride != item_size or n > row_extent - here % row_extent:
                            gather(buffer, start, reduced_dims, n_reduced_dims, here, n)
                            x = buffer
                        take(states, x, n, here, here == first)
                    here += n
                kept += width
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


@cache
def _make_gather_tile(item_size: int) -> Any:
    """A compiled function that copies n items of `width` neighbouring kept elements, each to its own column."""

    @_compiled
    def gather_tile(buffer, start, step, dims, n_dims, first, n, width):  # type: ignore[no-untyped-def]
        kept_apart()
        extent, stride = read_word(dims, 2 * n_dims - 2), read_word(dims, 2 * n_dims - 1)
        done = 0
        while done < n:
            here = first + done
            run = min(extent - here % extent, n - done)
            x = start + offset_of(dims, n_dims, here)
            for r in range(run):
                row, column = x + r * stride, buffer + (done + r) * item_size
                for k in range(width):
                    copy_bytes(column + k * _PITCH * item_size, row + k * step, item_size)
            done += run

    return gather_tile


def _make_take(accumulate: Any, item: types.Type, state: types.Type, n_words: int) -> Any:
    """A compiled function (address of a state, address of items, n, first, fresh) that calls `accumulate`."""
    kinds = (types.Array(state, 1, "C"), types.Array(item, 1, "C"), types.int64, types.boolean)
    sizes = (8, as_dtype(item).itemsize)

    @intrinsic
    def take(typingctx, states, x, n, first, fresh):  # type: ignore[no-untyped-def]
        resolved = resolve(typingctx, accumulate, kinds)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            states, x, n, first, fresh = args
            words, size = (context.get_constant(types.int64, value) for value in (n_words, sizes[1]))
            eight = context.get_constant(types.int64, 8)
            values = [
                array_view(context, builder, kinds[0], states, [words], [eight]),
                array_view(context, builder, kinds[1], x, [n], [size]),
                first,
                context.cast(builder, fresh, signature.args[4], types.boolean),
            ]
            emit_call(context, builder, accumulate, resolved, values)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64, fresh), codegen

    return take
