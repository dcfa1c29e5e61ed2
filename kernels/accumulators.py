"""Ready-made reductions, one block of items after another: what the engine's block driver calls.

Each loop is `accumulate(state, x, first, fresh)`: it takes the contiguous block `x`, whose first item is number
`first` of those that are reduced, into `state`, an array of 64-bit words; `fresh` says that the state holds nothing
yet. States of adjacent ranges are joined by the caller, in order.

==================  ===========================  =====================================
loop                words of the state           state of two ranges
==================  ===========================  =====================================
moments             count, mean, M2 (float64)    Chan, Golub and LeVeque (1979)
nanmoments          the same, without nan        the same
total, nantotal     sum                          sum
nanproduct          product                      product
nanaverage          count, sum (float64)         sums
squares             sum of squares               sum
magnitudes          sum of absolute values       sum
nonzeros            count (int64)                sum
argmin, argmax      index, bits of the value     the better, the left one of equals
nanargmin, ...max   the same; index -1: no number
==================  ===========================  =====================================

Sums are those of `shmarray.kernels.reductions`, of at least pairwise accuracy. `by_rows` makes of such a loop one that
goes through the rows of an array by itself.

Examples
--------
>>> import numpy as np
>>> from shmarray.kernels.accumulators import moments
>>> state = np.zeros(3)
>>> moments(state, np.array([1.0, 2.0]), 0, True)
>>> moments(state, np.array([3.0]), 2, False)
>>> state.tolist()
[3.0, 2.0, 2.0]
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from ._folding import as_type_of
from ._jit import inlined, intrinsic, loop, part
from ._views import stretch
from .moments import of_block, of_numbers
from .reductions import (
    fold_magnitudes,
    fold_max,
    fold_min,
    fold_nanmax,
    fold_nanmin,
    fold_nanprod,
    fold_nansum,
    fold_nonzero,
    fold_squares,
    fold_sum,
)

__all__ = [
    "argmax",
    "argmin",
    "by_rows",
    "magnitudes",
    "moments",
    "nanargmax",
    "nanargmin",
    "nanaverage",
    "nanmoments",
    "nanproduct",
    "nantotal",
    "nonzeros",
    "squares",
    "total",
]


def by_rows(accumulate: Callable[..., Any]) -> Callable[..., Any]:
    """A loop that calls one of this module's for each row of an array.

    It is `rows(task, x, n_kept, kept_step, n_reduced, reduced_step, block_items, n_words, states)`. `x` has `n_kept`
    rows of `n_reduced` items one behind the other, each of which is reduced. A task is `kept_step` of the rows, and of
    each a range of `reduced_step` items, taken `block_items` at a time; tasks are counted through the rows of the first
    range, then through those of the next. `states` is flat too: of each range those of all rows, `n_words` each.
    """
    taken = part(accumulate)

    def rows(task, x, n_kept, kept_step, n_reduced, reduced_step, block_items, n_words, states):
        across = (n_kept + kept_step - 1) // kept_step
        first = task // across * reduced_step
        stop = first + reduced_step if first + reduced_step < n_reduced else n_reduced
        row = task % across * kept_step
        after = row + kept_step if row + kept_step < n_kept else n_kept
        while row < after:
            state = stretch(states, (task // across * n_kept + row) * n_words, n_words)
            here = first
            while here < stop:
                count = block_items if here + block_items < stop else stop - here
                taken(state, stretch(x, row * n_reduced + here, count), here, here == first)
                here += block_items
            row += 1

    return rows


# -- mean and variance
# --------------------------------------------------------------------------------------------


def _moving_on(block):
    def accumulate(state, x, first, fresh):
        count, mean, spread = block(x)
        if not fresh and state[0] > 0.0:
            both, distance = state[0] + count, mean - state[1]
            share = count / both
            spread = state[2] + spread + (distance * distance * share * state[0] if count > 0 else 0.0)
            mean = state[1] + (distance * share if count > 0 else 0.0)
            state[0], state[1], state[2] = both, mean, spread
        else:
            state[0], state[1], state[2] = count, mean, spread

    return accumulate


moments = loop(_moving_on(of_block))
nanmoments = loop(_moving_on(of_numbers))


# -- sums
# ---------------------------------------------------------------------------------------------------------


def _adding(fold, identity):
    def accumulate(state, x, first, fresh):
        found = fold(x, as_type_of(identity, state[0]))
        state[0] = found if fresh else state[0] + found

    return loop(accumulate)


# From -0.0 on: 0.0 + -0.0 would lose the sign.
total = _adding(fold_sum, -0.0)
nantotal = _adding(fold_nansum, 0.0)
squares = _adding(fold_squares, 0.0)
magnitudes = _adding(fold_magnitudes, 0.0)
nonzeros = _adding(fold_nonzero, 0)


@loop
def nanproduct(state, x, first, fresh):
    """The product, nan as one."""
    found = fold_nanprod(x, 1.0)
    state[0] = found if fresh else state[0] * found


@loop
def nanaverage(state, x, first, fresh):
    """How many items are not nan, and their sum."""
    sum_, count = fold_nansum(x, 0.0), np.int64(0)
    for i in range(x.size):
        count += np.int64(x[i] == x[i])
    state[0] = count if fresh else state[0] + count
    state[1] = sum_ if fresh else state[1] + sum_


# -- places of extrema
# --------------------------------------------------------------------------------------------


@intrinsic
def _word_of(typing, value):
    """The bits of a number, in the lower part of an int64."""

    def generate(context, builder, signature, args):
        bits = args[0]
        if isinstance(value, types.Float):
            bits = builder.bitcast(bits, ir.IntType(value.bitwidth))
        return builder.zext(bits, ir.IntType(64)) if bits.type.width < 64 else bits

    return types.int64(value), generate


@intrinsic
def _number_of(typing, word, like):
    """The number of the type of `like` that has these bits."""

    def generate(context, builder, signature, args):
        form = context.get_value_type(like)
        width = like.bitwidth if isinstance(like, types.Float) else form.width
        bits = builder.trunc(args[0], ir.IntType(width)) if width < 64 else args[0]
        return builder.bitcast(bits, form)

    return like(types.int64, like), generate


def _locating(fold, is_better):
    """The place is looked for only in blocks whose extremum beats all before: on random data in few of them.

    Where nan is left out, a block of nan alone has nan for its extremum, which beats nothing.
    """
    better = inlined(is_better)

    def accumulate(state, x, first, fresh):
        value = fold(x, x[0])
        if fresh:
            state[0] = -1
        if better(value, _number_of(state[1], value), state[0] < 0):
            i = 0
            while not ((x[i] == value) | ((x[i] != x[i]) & (value != value))):
                i += 1
            state[0], state[1] = first + i, _word_of(value)
        elif fresh:
            state[1] = _word_of(value)

    return loop(accumulate)


def _less_or_nan(a, b, is_first):
    return is_first | (a < b) | ((a != a) & (b == b))


def _greater_or_nan(a, b, is_first):
    return is_first | (a > b) | ((a != a) & (b == b))


def _less(a, b, is_first):
    return (is_first | (a < b)) & (a == a)


def _greater(a, b, is_first):
    return (is_first | (a > b)) & (a == a)


argmin = _locating(fold_min, _less_or_nan)
argmax = _locating(fold_max, _greater_or_nan)
nanargmin = _locating(fold_nanmin, _less)
nanargmax = _locating(fold_nanmax, _greater)
