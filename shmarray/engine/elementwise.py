"""The driver of scalar functions: claim a chunk, walk its rows, apply the function to each item.

The block of numbers that a driver reads (64-bit words)::

    0                 number of dimensions n
    1 + 4 d           extent, chunk, count, weight of dimension d (see `shmarray.engine.layout`)
    1 + 4 n + k(1+n)  operand k: address, then its stride in each dimension; inputs first, outputs last

The last dimension is the row (see `shmarray.engine.loops`). Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from shmarray import jit
from shmarray.engine.calls import emit_call, resolve
from shmarray.engine.loops import Row, emit_rows
from shmarray.engine.memory import item_pointer, plain_integer, read_word, reserve_words, write_word
from shmarray.engine.pacing import TRIAL_ITEMS, next_pace
from shmarray.kernels.vectors import wide_vectors
from shmarray.pool.atomics import monotonic_ns
from shmarray.pool.dispatch import claim_or_resume, finish, leave_half_way, over_budget, take_progress

__all__ = ["ARITY", "make_driver"]

#: Integers that a driver takes: page, block, lane, budget in nanoseconds.
ARITY = 4

_i64 = ir.IntType(64)
_compiled = numba.njit(**jit.options())
_MAX_DIMS = 64  # NumPy's limit


def make_driver(
    function: Any, inputs: Sequence[tuple[types.Type, bool]], outputs: Sequence[types.Type]
) -> Callable[[int, int, int, int], int]:
    """A driver, to be compiled for `ARITY` int64 arguments.

    Parameters
    ----------
    function : numba dispatcher
        Takes one scalar an input, gives one value or a tuple with one an output.
    inputs : sequence of (type, bool)
        The items' types, and whether an operand is one value for all.
    outputs : sequence of type
        The items' types of the outputs; values are cast to them.
    """
    apply_row = _make_row(function, inputs, outputs)
    n_operands = len(inputs) + len(outputs)
    reserve = reserve_words(2 * n_operands + 1 + 2 * _MAX_DIMS)

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        wide_vectors()
        started = monotonic_ns()
        place, m = reserve(), plain_integer(n_operands)
        pace = plain_integer(TRIAL_ITEMS)  # items between two looks at the clock, if there is a budget
        while True:
            index = claim_or_resume(page, lane)
            if index < 0:
                return 0
            n_rows = _first_row(block, place, m, index)
            length = read_word(place, 2 * m)
            if budget_ns == 0 or n_rows * length <= pace:
                apply_row(place)
                for _ in range(n_rows - 1):
                    _next_row(block, place, m)
                    apply_row(place)
            else:
                # The function may be slow, and Ctrl-C must not wait for a whole chunk: look at the clock within it.
                done = take_progress(page, lane)
                for _ in range(done // length):
                    _next_row(block, place, m)
                column = done % length
                _advance(place, m, column)
                since, looked = 0, monotonic_ns()
                while done < n_rows * length:
                    part = min(pace - since, length - column)
                    write_word(place, 2 * m, part)
                    apply_row(place)
                    done += part
                    since += part
                    if since == pace:
                        now = monotonic_ns()
                        pace = next_pace(pace, now - looked)
                        since, looked = 0, now
                        if now - started > budget_ns and done < n_rows * length:
                            leave_half_way(page, done)
                            return 1
                    if column + part < length:
                        _advance(place, m, part)
                        column += part
                    else:
                        _advance(place, m, -column)
                        column = 0
                        _next_row(block, place, m)
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


# What a driver works out about the row at hand, as words: where each of the m operands starts, their steps along the
# row, its length at 2 m; then how far along each dimension it is in its chunk, and how far the chunk goes.
#
# These are functions by themselves, of integers alone, so that a process compiles them once for all kernels.


@_compiled
def _first_row(block, place, n_operands, index):  # type: ignore[no-untyped-def]
    """Go to the first row of chunk number `index`, and tell how many rows it has."""
    n_dims = read_word(block, 0)
    operands = block + 8 * (1 + 4 * n_dims)
    counters = place + 8 * (2 * n_operands + 1)
    for k in range(n_operands):
        write_word(place, k, read_word(operands, k * (1 + n_dims)))
        write_word(place, n_operands + k, read_word(operands, k * (1 + n_dims) + n_dims))
    n_rows = length = 1
    for d in range(n_dims):
        n_rows *= length
        chunk = read_word(block, 2 + 4 * d)
        begin = index // read_word(block, 4 + 4 * d) % read_word(block, 3 + 4 * d) * chunk
        length = min(chunk, read_word(block, 1 + 4 * d) - begin)
        write_word(counters, d, 0)
        write_word(counters, _MAX_DIMS + d, length)
        for k in range(n_operands):
            step = read_word(operands, k * (1 + n_dims) + 1 + d)
            write_word(place, k, read_word(place, k) + begin * step)
    write_word(place, 2 * n_operands, length)
    return n_rows


@_compiled
def _advance(place, n_operands, items):  # type: ignore[no-untyped-def]
    """Go `items` further along the row."""
    for k in range(n_operands):
        write_word(place, k, read_word(place, k) + items * read_word(place, n_operands + k))


@_compiled
def _next_row(block, place, n_operands):  # type: ignore[no-untyped-def]
    """Go to the next row of the chunk."""
    n_dims = read_word(block, 0)
    operands = block + 8 * (1 + 4 * n_dims)
    counters = place + 8 * (2 * n_operands + 1)
    d = n_dims - 2
    while d >= 0:
        here, extent = read_word(counters, d) + 1, read_word(counters, _MAX_DIMS + d)
        turns = 1 if here < extent else 1 - extent
        write_word(counters, d, here if here < extent else 0)
        for k in range(n_operands):
            step = read_word(operands, k * (1 + n_dims) + 1 + d)
            write_word(place, k, read_word(place, k) + turns * step)
        if here < extent:
            return
        d -= 1


def _make_row(function: Any, inputs: Sequence[tuple[types.Type, bool]], outputs: Sequence[types.Type]) -> Any:
    """A compiled function of `place` that applies the scalar function along the row at hand."""
    n_inputs, n_operands = len(inputs), len(inputs) + len(outputs)
    items = [item for item, _ in inputs] + list(outputs)
    constant = [is_constant for _, is_constant in inputs] + [False] * len(outputs)
    argtypes = tuple(item for item, _ in inputs)

    @intrinsic
    def apply_row(typingctx, place):  # type: ignore[no-untyped-def]
        result = resolve(typingctx, function, argtypes)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            place = builder.inttoptr(args[0], _i64.as_pointer())
            words = [builder.load(builder.gep(place, [_i64(k)])) for k in range(2 * n_operands + 1)]
            starts, steps, length = words[:n_operands], words[n_operands:-1], words[-1]
            values: list[Any] = [None] * n_inputs
            for k in range(n_inputs):
                if constant[k]:
                    pointer = item_pointer(context, builder, items[k], starts[k])
                    values[k] = context.unpack_value(builder, items[k], pointer)

            def turn(row: Row) -> None:
                here = list(values)
                with row.accesses(builder):
                    for k in range(n_inputs):
                        if not constant[k]:
                            here[k] = context.unpack_value(builder, items[k], row.places[k])
                value = emit_call(context, builder, function, result, here)
                parts, kinds = [value], [result.return_type]
                if isinstance(result.return_type, types.BaseTuple):
                    parts, kinds = cgutils.unpack_tuple(builder, value, len(outputs)), list(result.return_type)
                with row.accesses(builder):
                    for place, part, kind, item in zip(row.places[n_inputs:], parts, kinds, outputs, strict=True):
                        context.pack_value(builder, item, context.cast(builder, part, kind, item), place)

            walked = [None if is_constant else item for item, is_constant in zip(items, constant, strict=True)]
            emit_rows(context, builder, walked, starts, steps, length, turn)
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return apply_row
