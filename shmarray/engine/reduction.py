"""The driver of folds: each chunk of a fixed grid becomes a partial result; partials are combined in grid order.

An array of any rank is seen as kept elements times reduced elements, both numbered in C order. A chunk is a range of
each; chunk c covers kept range c % n and reduced range c // n. Its partials go to row c // n of an array (reduced
ranges, kept elements).

The block of numbers that a driver reads (64-bit words; `shmarray.engine.reduction_grid` makes it)::

    0    kept elements, kept a chunk, reduced elements, reduced a chunk
    4    address of the partials (C-contiguous)
    5    number of kept dimensions k, number of reduced dimensions r, address of the array
    8    extent and stride of each kept dimension, then of each reduced one; inner dimensions last
    behind these: room for nine accumulators, in which a fold waits while the caller is back in Python

A fold may be slow, and Ctrl-C must not wait for a chunk of it: the caller looks at the clock every so many items
(`shmarray.engine.pacing`), and may leave a chunk between any two of them.

Invariant: which elements are folded in which order depends on these numbers alone, and these on shape, dtype and axis
alone; not on where the caller left a chunk. So the bits of a result depend on no machine, setting, or number of
workers. Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype

from shmarray import jit
from shmarray.engine.calls import emit_call, resolve
from shmarray.engine.loops import Row, emit_rows
from shmarray.engine.memory import (
    item_loader,
    item_pointer,
    item_storer,
    kept_apart,
    plain_integer,
    read_word,
    reserve_words,
    write_word,
)
from shmarray.engine.pacing import MOST_ITEMS, TRIAL_ITEMS, next_pace
from shmarray.engine.reduction_grid import STRIPES, STRIPES_FROM, fold_block, is_striped
from shmarray.pool.atomics import copy_bytes, monotonic_ns
from shmarray.pool.dispatch import claim_or_resume, finish, leave_half_way, over_budget, take_progress

__all__ = ["PLACE_WORDS", "locate", "make_column_driver", "make_gather", "make_row_driver", "offset_of"]

_compiled = numba.njit(**jit.options())

#: Words that `locate` fills: first kept element and the one behind the last, the same of the reduced ones, and where
#: the row of partials begins.
PLACE_WORDS = 5


@_compiled
def locate(block, place, index, partial_nbytes):  # type: ignore[no-untyped-def]
    """Put down what chunk number `index` is about."""
    kept_apart()
    n_kept, kept_step = read_word(block, 0), read_word(block, 1)
    n_reduced, reduced_step = read_word(block, 2), read_word(block, 3)
    n_ranges = -(-n_kept // kept_step)
    kept, reduced = index % n_ranges * kept_step, index // n_ranges * reduced_step
    write_word(place, 0, kept)
    write_word(place, 1, min(n_kept, kept + kept_step))
    write_word(place, 2, reduced)
    write_word(place, 3, min(n_reduced, reduced + reduced_step))
    write_word(place, 4, read_word(block, 4) + index // n_ranges * n_kept * partial_nbytes)


def make_row_driver(
    fold: Any, combine: Any, identity: Any, item: types.Type, accumulator: types.Type
) -> Callable[[int, int, int, int], int]:
    """For arrays whose last dimension is reduced: fold along rows.

    Floating-point numbers are taken in blocks, and each block is cut into eight stripes that are folded side by side
    (the processor overlaps eight chains of dependent operations) and combined in order; so `combine` needs to be
    associative, and nothing needs to commute. A block is a number of items in C order, whatever the array's strides:
    where they do not lie along one row they are gathered first. Folds of whole numbers go straight on: there the
    compiler itself may reorder, and makes vector code of a plain loop where it can.
    """
    acc_size, item_size = as_dtype(accumulator).itemsize, as_dtype(item).itemsize
    striped = is_striped(as_dtype(accumulator))
    fold_row, fold_part = _make_folds(fold, combine, identity, item, accumulator)
    start_of = _make_start(identity, accumulator)
    load, store = item_loader(accumulator), item_storer(accumulator)
    block_items = fold_block(item_size)
    reserve = reserve_words(PLACE_WORDS)
    reserve_buffer = reserve_words(-(-block_items * item_size // 8) if striped else 0)
    gather = make_gather(item_size)

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        started = looked = monotonic_ns()
        n_kept_dims, n_reduced_dims, array = read_word(block, 5), read_word(block, 6), read_word(block, 7)
        reduced_dims = block + 8 * (8 + 2 * n_kept_dims)
        row_extent = read_word(reduced_dims, 2 * (n_reduced_dims - 1))
        row_stride = read_word(reduced_dims, 2 * (n_reduced_dims - 1) + 1)
        state = reduced_dims + 16 * n_reduced_dims
        place, buffer = reserve(), reserve_buffer()
        pace, since, late = (TRIAL_ITEMS if budget_ns > 0 else MOST_ITEMS), 0, False
        while True:
            index = claim_or_resume(page, lane)
            if index < 0:
                return 0
            locate(block, place, index, plain_integer(acc_size))
            kept_first, kept_stop, partials = read_word(place, 0), read_word(place, 1), read_word(place, 4)
            first, stop = read_word(place, 2), read_word(place, 3)
            done = take_progress(page, lane)
            kept, here = kept_first + done // (stop - first), first + done % (stop - first)
            acc = start_of() if here == first else load(state)
            while kept < kept_stop:
                start = array + offset_of(block + 64, n_kept_dims, kept)
                while here < stop:
                    at = (here - first) % block_items if striped else 0
                    begin = here - at
                    in_row = row_extent - begin % row_extent
                    n = min(block_items if striped else in_row, stop - begin)
                    x, step = start + offset_of(reduced_dims, n_reduced_dims, begin), row_stride
                    if n > in_row:
                        gather(buffer, start, reduced_dims, n_reduced_dims, begin, n)
                        x, step = buffer, item_size
                    part = min(n - at, pace - since)
                    if part == n:
                        acc = fold_row(x, step, n, acc)
                    else:
                        store(state, acc)
                        fold_part(state, x, step, n, at, at + part)
                        acc = load(state)
                    here += part
                    since += part
                    if since == pace and budget_ns > 0:
                        now = monotonic_ns()
                        pace, since, looked = next_pace(pace, now - looked), 0, now
                        late = now - started > budget_ns
                        if late and here < stop:
                            store(state, acc)
                            leave_half_way(page, (kept - kept_first) * (stop - first) + here - first)
                            return 1
                store(partials + kept * acc_size, acc)
                kept, here, acc = kept + 1, first, start_of()
                if late and kept < kept_stop:
                    leave_half_way(page, (kept - kept_first) * (stop - first))
                    return 1
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


def make_column_driver(
    fold: Any, identity: Any, item: types.Type, accumulator: types.Type
) -> Callable[[int, int, int, int], int]:
    """For arrays whose last dimension is kept: fold row by row into a row of accumulators."""
    store = item_storer(accumulator)
    fold_columns = _make_fold_columns(fold, item, accumulator)
    start_of = _make_start(identity, accumulator)
    acc_size = as_dtype(accumulator).itemsize
    reserve = reserve_words(PLACE_WORDS)

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        started = looked = monotonic_ns()
        n_kept_dims, n_reduced_dims, array = read_word(block, 5), read_word(block, 6), read_word(block, 7)
        reduced_dims = block + 8 * (8 + 2 * n_kept_dims)
        row_extent = read_word(block, 8 + 2 * (n_kept_dims - 1))
        row_stride = read_word(block, 8 + 2 * (n_kept_dims - 1) + 1)
        place = reserve()
        pace, since = (TRIAL_ITEMS if budget_ns > 0 else MOST_ITEMS), 0
        while True:
            index = claim_or_resume(page, lane)
            if index < 0:
                return 0
            locate(block, place, index, plain_integer(acc_size))
            kept, kept_stop, partials = read_word(place, 0), read_word(place, 1), read_word(place, 4)
            first, stop = read_word(place, 2), read_word(place, 3)
            done = take_progress(page, lane)
            ahead = done  # what of that lies in the stretch at hand and behind it
            while kept < kept_stop:  # a stretch within one row of the last kept dimension
                column = kept % row_extent
                n = min(row_extent - column, kept_stop - kept)
                start = array + offset_of(block + 64, n_kept_dims - 1, kept // row_extent) + column * row_stride
                accs = partials + kept * acc_size
                if ahead == 0:
                    for j in range(n):
                        store(accs + j * acc_size, start_of())
                reduced, at = min(stop, first + ahead // n), ahead % n
                ahead = max(0, ahead - n * (stop - first))
                while reduced < stop:
                    x = start + offset_of(reduced_dims, n_reduced_dims, reduced)
                    while at < n:
                        part = min(n - at, pace - since)
                        fold_columns(accs + at * acc_size, x + at * row_stride, row_stride, part)
                        at += part
                        done += part
                        since += part
                        if since == pace and budget_ns > 0:
                            now = monotonic_ns()
                            pace, since, looked = next_pace(pace, now - looked), 0, now
                            if now - started > budget_ns and (at < n or reduced + 1 < stop or kept + n < kept_stop):
                                leave_half_way(page, done)
                                return 1
                    reduced, at = reduced + 1, 0
                kept += n
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


@_compiled
def offset_of(dims, n_dims, index):  # type: ignore[no-untyped-def]
    """From how many (extent, stride) dimensions and a flat index to an offset in bytes."""
    kept_apart()
    total = 0
    for back in range(n_dims):
        d = n_dims - 1 - back
        extent = read_word(dims, 2 * d)
        total += index % extent * read_word(dims, 2 * d + 1)
        index //= extent
    return total


@cache
def make_gather(item_size: int) -> Any:
    """A compiled function that copies n items, in C order from flat index `first` on, side by side to a buffer."""

    @_compiled
    def gather(buffer, start, dims, n_dims, first, n):  # type: ignore[no-untyped-def]
        kept_apart()
        extent, stride = read_word(dims, 2 * n_dims - 2), read_word(dims, 2 * n_dims - 1)
        done = 0
        while done < n:
            here = first + done
            run = min(extent - here % extent, n - done)
            x = start + offset_of(dims, n_dims, here)
            for k in range(run):
                copy_bytes(buffer + (done + k) * item_size, x + k * stride, item_size)
            done += run

    return gather


def _make_folds(fold: Any, combine: Any, identity: Any, item: types.Type, accumulator: types.Type) -> tuple[Any, Any]:
    """Two compiled functions that fold a block of items: at one go, and some of it at a time.

    `fold_row(address, step, n, accumulator)` gives the accumulator with all of it. `fold_part(state, address, step, n,
    first, last)` takes items `first` to `last` in the order in which the other one does, the accumulator and those of
    the stripes waiting at `state`: so both come to the same bits.
    """
    striped = is_striped(as_dtype(accumulator))
    size = as_dtype(accumulator).itemsize
    fold_straight = _make_fold_straight(fold, item, accumulator)
    step_in = _make_fold(fold, item, accumulator)
    join = _make_combine(combine, accumulator)
    start_of = _make_start(identity, accumulator)
    load, store = item_loader(accumulator), item_storer(accumulator)

    @_compiled
    def joined(acc, a0, a1, a2, a3, a4, a5, a6, a7):  # type: ignore[no-untyped-def]
        left, right = join(join(a0, a1), join(a2, a3)), join(join(a4, a5), join(a6, a7))
        return join(acc, join(left, right))

    @_compiled
    def fold_row(x, step, n, acc):  # type: ignore[no-untyped-def]
        if striped and n >= STRIPES_FROM:
            m = n // STRIPES
            stripe = m * step
            a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = start_of()
            for _ in range(m):
                a0 = step_in(a0, x)
                a1 = step_in(a1, x + stripe)
                a2 = step_in(a2, x + 2 * stripe)
                a3 = step_in(a3, x + 3 * stripe)
                a4 = step_in(a4, x + 4 * stripe)
                a5 = step_in(a5, x + 5 * stripe)
                a6 = step_in(a6, x + 6 * stripe)
                a7 = step_in(a7, x + 7 * stripe)
                x += step
            acc = joined(acc, a0, a1, a2, a3, a4, a5, a6, a7)
            x += 7 * stripe
            n -= STRIPES * m
        return fold_straight(acc, x, step, n)

    @_compiled
    def fold_part(state, x, step, n, first, last):  # type: ignore[no-untyped-def]
        kept_apart()
        acc = load(state)
        m = n // STRIPES if striped and n >= STRIPES_FROM else 0
        if striped:
            for at in range(first, min(last, STRIPES * m)):
                turn, stripe = at // STRIPES, at % STRIPES
                own = state + (1 + stripe) * size
                before = start_of() if turn == 0 else load(own)
                store(own, step_in(before, x + (stripe * m + turn) * step))
                if at == STRIPES * m - 1:
                    a0, a1 = load(state + size), load(state + 2 * size)
                    a2, a3 = load(state + 3 * size), load(state + 4 * size)
                    a4, a5, a6 = load(state + 5 * size), load(state + 6 * size), load(state + 7 * size)
                    acc = joined(acc, a0, a1, a2, a3, a4, a5, a6, load(own))
        begin = max(first, STRIPES * m)
        store(state, fold_straight(acc, x + begin * step, step, max(0, last - begin)))

    return fold_row, fold_part


def _make_fold(fold: Any, item: types.Type, accumulator: types.Type) -> Any:
    """A compiled function (accumulator, address of an item) -> the accumulator with that item."""

    @intrinsic
    def step_in(typingctx, acc, address):  # type: ignore[no-untyped-def]
        resolved = resolve(typingctx, fold, (accumulator, item))

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            value = context.unpack_value(builder, item, item_pointer(context, builder, item, args[1]))
            folded = emit_call(context, builder, fold, resolved, (args[0], value))
            return context.cast(builder, folded, resolved.return_type, accumulator)

        return accumulator(accumulator, types.int64), codegen

    return step_in


def _make_fold_straight(fold: Any, item: types.Type, accumulator: types.Type) -> Any:
    """A compiled function (accumulator, address, step, n) -> the accumulator with n items."""

    @intrinsic
    def fold_straight(typingctx, acc, x, step, n):  # type: ignore[no-untyped-def]
        resolved = resolve(typingctx, fold, (accumulator, item))

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            acc = cgutils.alloca_once_value(builder, args[0])

            def turn(row: Row) -> None:
                with row.accesses(builder):
                    value = context.unpack_value(builder, item, row.places[0])
                folded = emit_call(context, builder, fold, resolved, (builder.load(acc), value))
                builder.store(context.cast(builder, folded, resolved.return_type, accumulator), acc)

            emit_rows(context, builder, [item], [args[1]], [args[2]], args[3], turn)
            return builder.load(acc)

        return accumulator(accumulator, types.int64, types.int64, types.int64), codegen

    return fold_straight


def _make_fold_columns(fold: Any, item: types.Type, accumulator: types.Type) -> Any:
    """A compiled function (accumulators, items, step, n) that folds n items into as many accumulators."""
    acc_size = as_dtype(accumulator).itemsize

    @intrinsic
    def fold_columns(typingctx, accs, x, step, n):  # type: ignore[no-untyped-def]
        resolved = resolve(typingctx, fold, (accumulator, item))

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            accs, x, step, n = args

            def turn(row: Row) -> None:
                acc_place, place = row.places
                with row.accesses(builder):
                    acc = context.unpack_value(builder, accumulator, acc_place)
                    value = context.unpack_value(builder, item, place)
                folded = emit_call(context, builder, fold, resolved, (acc, value))
                folded = context.cast(builder, folded, resolved.return_type, accumulator)
                with row.accesses(builder):
                    context.pack_value(builder, accumulator, folded, acc_place)

            steps = [ir.IntType(64)(acc_size), step]
            emit_rows(context, builder, [accumulator, item], [accs, x], steps, n, turn)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), codegen

    return fold_columns


def _make_combine(combine: Any, accumulator: types.Type) -> Any:
    """A compiled function (accumulator, accumulator) -> both joined."""

    @intrinsic
    def join(typingctx, one, other):  # type: ignore[no-untyped-def]
        resolved = resolve(typingctx, combine, (accumulator, accumulator))

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            joined = emit_call(context, builder, combine, resolved, args)
            return context.cast(builder, joined, resolved.return_type, accumulator)

        return accumulator(accumulator, accumulator), codegen

    return join


def _make_start(identity: Any, accumulator: types.Type) -> Any:
    """A compiled function () -> the identity."""
    value = as_dtype(accumulator).type(identity)

    @intrinsic
    def start_of(typingctx):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return context.get_constant_generic(builder, accumulator, value)

        return accumulator(), codegen

    return start_of
