"""Reductions of 1-D blocks: what one chunk contributes, and how contributions are combined.

A `block_*` function reduces one block (contiguous or strided, any numeric dtype) to a partial result; a
`combine_*` function joins the partials of two adjacent blocks, the left one first. The whole result is the
partials of a fixed grid combined in its order, so it has the same bits for any number of workers.

====================  ==========================  ======================  ============================
block                 partial                     identity                combine
====================  ==========================  ======================  ============================
sum, nansum           accumulator                 0                       combine_sum
prod, nanprod         accumulator                 1                       combine_prod
sum_of_squares        float64 or integer          0                       combine_sum
min, max              element                     none                    combine_min, combine_max
nanmin, nanmax        element                     nan                     combine_nanmin, combine_nanmax
argmin, argmax        (element, index)            none                    combine_argmin, combine_argmax
moments, nanmoments   (count, mean, M2)           (0, 0.0, 0.0)           combine_moments
count_nonzero         int64                       0                       combine_sum
any, all              bool                        False, True             combine_any, combine_all
====================  ==========================  ======================  ============================

Accumulators are int64 (booleans, signed integers), uint64 (unsigned) or float64; a float32 sum is rounded to
float32 once, by the caller, at the end. min, max, argmin and argmax of an empty block raise ValueError as
NumPy's do. nan rules are NumPy's: any nan is the minimum and the maximum, and the first nan has the index.

`M2` is the sum of the squared distances from the mean, see `shmarray.kernels.moments`.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ._folding import PIECE, accumulator_zero, as_type_of, folding
from ._jit import inlined, loop, part
from .moments import block_moments, block_nanmoments, combine_moments, variance

__all__ = [
    "block_all",
    "block_any",
    "block_argmax",
    "block_argmin",
    "block_count_nonzero",
    "block_max",
    "block_min",
    "block_moments",
    "block_nanmax",
    "block_nanmin",
    "block_nanmoments",
    "block_nanprod",
    "block_nansum",
    "block_prod",
    "block_sum",
    "block_sum_of_squares",
    "combine_all",
    "combine_any",
    "combine_argmax",
    "combine_argmin",
    "combine_max",
    "combine_min",
    "combine_moments",
    "combine_nanmax",
    "combine_nanmin",
    "combine_prod",
    "combine_sum",
    "variance",
]


# -- joins of two accumulators, and steps of an accumulator and an element. `|` and not `or`: a branch would keep the
# -- loop from vectorising


def _add(a, b):
    return a + b


def _multiply(a, b):
    return a * b


def _smaller(a, b):
    return a if (a <= b) | (a != a) else b


def _larger(a, b):
    return a if (a >= b) | (a != a) else b


def _smaller_number(a, b):
    return a if (a <= b) | (b != b) else b


def _larger_number(a, b):
    return a if (a >= b) | (b != b) else b


def _add_element(total, x):
    return total + as_type_of(x, total)


def _multiply_by_element(total, x):
    return total * as_type_of(x, total)


def _add_number(total, x):
    return total + as_type_of(x, total) if x == x else total


def _multiply_by_number(total, x):
    return total * as_type_of(x, total) if x == x else total


def _add_square(total, x):
    wide = as_type_of(x, total)
    return total + wide * wide


def _add_magnitude(total, x):
    return total + abs(as_type_of(x, total))


def _count_nonzero(total, x):
    return total + np.int64(x != 0)


fold_sum = folding(_add_element, _add)
fold_nansum = folding(_add_number, _add)
fold_prod = folding(_multiply_by_element, _multiply)
fold_nanprod = folding(_multiply_by_number, _multiply)
fold_squares = folding(_add_square, _add)
fold_magnitudes = folding(_add_magnitude, _add)
fold_nonzero = folding(_count_nonzero, _add)
fold_min = folding(_smaller, _smaller)
fold_max = folding(_larger, _larger)
fold_nanmin = folding(_smaller_number, _smaller_number)
fold_nanmax = folding(_larger_number, _larger_number)


# -- sums and products
# --------------------------------------------------------------------------------------------


def _summing(fold):
    """Sum by pieces; what the addition of two pieces rounds away is kept and added at the end."""

    def block(x):
        zero = accumulator_zero(x)
        total, error = zero, zero
        for start in range(0, x.size, PIECE):
            piece = fold(x[start : start + PIECE], zero)
            before = total
            total = before + piece
            back = total - before
            error += (before - (total - back)) + (piece - back)
        # nan where an infinity came in: the total is right then. Zero would turn a total of -0.0 into 0.0.
        if (error == error) & (error != 0):
            total += error
        return total if x.size > 0 else as_type_of(0, zero)

    return block


_block_sum = part(_summing(fold_sum))
_block_nansum = part(_summing(fold_nansum))
_block_squares = part(_summing(fold_squares))


@loop
def block_sum(x):
    """Sum of a block, of at least pairwise accuracy.

    Parameters
    ----------
    x : (n,) array

    Returns
    -------
    int64, uint64, float64 or complex128
        0 for an empty block.

    Examples
    --------
    >>> import numpy as np
    >>> from shmarray.kernels.reductions import block_sum
    >>> float(block_sum(np.array([0.5, 1.5], np.float32)))
    2.0
    """
    return _block_sum(x)


@loop
def block_nansum(x):
    """Sum of a block with nan as zero; as `block_sum` otherwise."""
    return _block_nansum(x)


@loop
def block_sum_of_squares(x):
    """Sum of the squares of a real block, in the accumulator's type: the square of the 2-norm."""
    return _block_squares(x)


@loop
def block_prod(x):
    """Product of a block; 1 for an empty one. Integers wrap as NumPy's do."""
    zero = accumulator_zero(x)
    return fold_prod(x, as_type_of(1, zero))


@loop
def block_nanprod(x):
    """Product of a block with nan as one."""
    zero = accumulator_zero(x)
    return fold_nanprod(x, as_type_of(1, zero))


@inlined
def combine_sum(left, right):
    """The sum of two sums."""
    return left + right


@inlined
def combine_prod(left, right):
    """The product of two products."""
    return left * right


# -- extrema
# ------------------------------------------------------------------------------------------------------


@loop
def block_min(x):
    """Smallest element; nan if there is one.

    Examples
    --------
    >>> import numpy as np
    >>> from shmarray.kernels.reductions import block_min
    >>> int(block_min(np.array([3, 1, 2])))
    1
    """
    if x.size == 0:
        raise ValueError("the minimum of an empty block is not defined")
    return fold_min(x, x[0])


@loop
def block_max(x):
    """Largest element; nan if there is one."""
    if x.size == 0:
        raise ValueError("the maximum of an empty block is not defined")
    return fold_max(x, x[0])


@loop
def block_nanmin(x):
    """Smallest element that is not nan; nan if there is none."""
    if x.size == 0:
        raise ValueError("the minimum of an empty block is not defined")
    return fold_nanmin(x, x[0])


@loop
def block_nanmax(x):
    """Largest element that is not nan; nan if there is none."""
    if x.size == 0:
        raise ValueError("the maximum of an empty block is not defined")
    return fold_nanmax(x, x[0])


combine_min, combine_max = inlined(_smaller), inlined(_larger)
combine_nanmin, combine_nanmax = inlined(_smaller_number), inlined(_larger_number)


# -- positions of extrema
# -----------------------------------------------------------------------------------------


def _locating(fold, better):
    """Per piece: its extremum by the fold, and where that beats all before it, the place of it in the piece.

    The search runs over few pieces (on random data about the logarithm of their number) that are still in the
    cache.
    """
    beats = inlined(better)

    def block(x):
        if x.size == 0:
            raise ValueError("the place of an extremum of an empty block is not defined")
        best, index = x[0], 0
        for start in range(0, x.size, PIECE):
            piece = x[start : start + PIECE]
            value = fold(piece, piece[0])
            if beats(value, best):
                best = value
                for i in range(piece.size):
                    if (piece[i] == value) | ((piece[i] != piece[i]) & (value != value)):
                        index = start + i
                        break
        return best, index

    return block


def _less_or_nan(a, b):
    """Whether `a`, which comes later, is to replace `b`: never if equal, and nothing replaces nan."""
    return (a < b) | ((a != a) & (b == b))


def _greater_or_nan(a, b):
    return (a > b) | ((a != a) & (b == b))


_block_argmin = part(_locating(fold_min, _less_or_nan))
_block_argmax = part(_locating(fold_max, _greater_or_nan))


@loop
def block_argmin(x):
    """Smallest element and its first index; the first nan if there is one.

    Examples
    --------
    >>> import numpy as np
    >>> from shmarray.kernels.reductions import block_argmin
    >>> [int(value) for value in block_argmin(np.array([3, 1, 1]))]
    [1, 1]
    """
    return _block_argmin(x)


@loop
def block_argmax(x):
    """Largest element and its first index; the first nan if there is one."""
    return _block_argmax(x)


@inlined
def combine_argmin(left, right):
    """The partial of the joined block; the right index already counts from the start of the left block."""
    return right if (right[0] < left[0]) | ((right[0] != right[0]) & (left[0] == left[0])) else left


@inlined
def combine_argmax(left, right):
    """As `combine_argmin`, for the largest."""
    return right if (right[0] > left[0]) | ((right[0] != right[0]) & (left[0] == left[0])) else left


# -- counting and logic
# -------------------------------------------------------------------------------------------


@loop
def block_count_nonzero(x):
    """Number of elements that are not zero; nan is not zero."""
    return fold_nonzero(x, 0)


@loop
def block_any(x):
    """Whether an element is not zero; stops at the first piece that has one."""
    for start in range(0, x.size, PIECE):  # noqa: SIM110 - numba compiles no generator expressions
        if fold_nonzero(x[start : start + PIECE], 0) > 0:
            return True
    return False


@loop
def block_all(x):
    """Whether no element is zero; stops at the first piece that has one."""
    for start in range(0, x.size, PIECE):
        piece = x[start : start + PIECE]
        if fold_nonzero(piece, 0) < piece.size:
            return False
    return True


@inlined
def combine_any(left, right):
    """Whether either is true."""
    return left | right


@inlined
def combine_all(left, right):
    """Whether both are true."""
    return left & right
