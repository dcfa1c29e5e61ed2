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

Sums are those of `shmarray.kernels.reductions`, of at least pairwise accuracy.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ._folding import as_type_of, folding
from ._jit import inlined, loop
from .reductions import (
    block_count_nonzero,
    block_max,
    block_min,
    block_moments,
    block_nanmoments,
    block_nanprod,
    block_nansum,
    block_sum,
    block_sum_of_squares,
    combine_moments,
)

__all__ = [
    "argmax",
    "argmin",
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

#: Below this many items a plain loop is faster than the lanes of `_folding`.
_SHORT = 48


# -- mean and variance
# --------------------------------------------------------------------------------------------


@inlined
def _short_moments(x):
    mean = 0.0
    for value in x:
        mean += value
    mean /= x.size
    rest = spread = 0.0
    for value in x:
        distance = value - mean
        rest += distance
        spread += distance * distance
    return x.size, mean + rest / x.size, spread - rest * rest / x.size


@loop
def moments(state, x, first, fresh):
    """Count, mean and sum of squared distances from the mean.

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
    found = _short_moments(x) if x.size < _SHORT else block_moments(x)
    if not fresh:
        found = combine_moments((np.int64(state[0]), state[1], state[2]), found)
    state[0], state[1], state[2] = found


@loop
def nanmoments(state, x, first, fresh):
    """The same of the items that are not nan."""
    found = block_nanmoments(x)
    if not fresh:
        found = combine_moments((np.int64(state[0]), state[1], state[2]), found)
    state[0], state[1], state[2] = found


# -- sums
# ---------------------------------------------------------------------------------------------------------


def _adding(block):
    def accumulate(state, x, first, fresh):
        found = block(x)
        state[0] = found if fresh else state[0] + found

    return loop(accumulate)


def _plus(a, b):
    return a + b


def _magnitude(value, parameter):
    return abs(as_type_of(value, parameter))


def _number_or_zero(value, parameter):
    return as_type_of(value, parameter) if value == value else parameter


def _is_number(value, parameter):
    return np.int64(value == value)


_fold_magnitudes = folding(_plus, _magnitude)
_fold_numbers = folding(_plus, _number_or_zero)
_fold_count = folding(_plus, _is_number)


@inlined
def _block_magnitudes(x):
    return _fold_magnitudes(x, 0.0, 0.0)


total = _adding(block_sum)
nantotal = _adding(block_nansum)
squares = _adding(block_sum_of_squares)
magnitudes = _adding(_block_magnitudes)
nonzeros = _adding(block_count_nonzero)


@loop
def nanproduct(state, x, first, fresh):
    """The product, nan as one."""
    found = block_nanprod(x)
    state[0] = found if fresh else state[0] * found


@loop
def nanaverage(state, x, first, fresh):
    """How many items are not nan, and their sum."""
    count, sum_ = _fold_count(x, 0, 0), _fold_numbers(x, 0.0, 0.0)
    state[0] = count if fresh else state[0] + count
    state[1] = sum_ if fresh else state[1] + sum_


# -- places of extrema
# --------------------------------------------------------------------------------------------


def _locating(extremum, is_better):
    """The place is looked for only in blocks whose extremum beats all before: on random data in few of them."""
    better = inlined(is_better)

    def accumulate(state, x, first, fresh):
        value = extremum(x)
        best = state[1:2].view(x.dtype)
        if fresh:
            state[1] = 0  # items narrower than a word leave the rest of it as it is
        if fresh or better(value, best[0]):
            best[0] = value
            i = 0
            while not ((x[i] == value) | ((x[i] != x[i]) & (value != value))):
                i += 1
            state[0] = first + i

    return loop(accumulate)


def _less_or_nan(a, b):
    return (a < b) | ((a != a) & (b == b))


def _greater_or_nan(a, b):
    return (a > b) | ((a != a) & (b == b))


argmin = _locating(block_min, _less_or_nan)
argmax = _locating(block_max, _greater_or_nan)


def _locating_numbers(is_better):
    better = inlined(is_better)

    def accumulate(state, x, first, fresh):
        best = state[1:2].view(x.dtype)
        if fresh:
            state[0], state[1] = -1, 0
        for i in range(x.size):
            value = x[i]
            if (value == value) & ((state[0] < 0) | better(value, best[0])):
                best[0] = value
                state[0] = first + i

    return loop(accumulate)


def _less(a, b):
    return a < b


def _greater(a, b):
    return a > b


nanargmin = _locating_numbers(_less)
nanargmax = _locating_numbers(_greater)
