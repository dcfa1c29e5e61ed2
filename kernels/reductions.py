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

`M2` is the sum of the squared distances from the mean. Partials are combined by Chan, Golub and LeVeque
(1979).
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ._folding import PIECE, accumulator_zero, as_type_of, folding
from ._jit import inlined, loop, part

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


# -- joins: of two accumulators. `|` and not `or`: a branch would keep the loop from vectorising
# -----------------


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


# -- terms: of one element and the fold's parameter, whose type is the accumulators'
# ------------------------------


def _itself(value, parameter):
    return as_type_of(value, parameter)


def _element(value, parameter):
    return value


def _number(value, parameter):
    """`parameter` in place of nan."""
    return as_type_of(value, parameter) if value == value else parameter


def _square(value, parameter):
    wide = as_type_of(value, parameter)
    return wide * wide


def _distance(value, parameter):
    return as_type_of(value, parameter) - parameter


def _squared_distance(value, parameter):
    distance = as_type_of(value, parameter) - parameter
    return distance * distance


def _number_distance(value, parameter):
    return as_type_of(value, parameter) - parameter if value == value else 0.0


def _number_squared_distance(value, parameter):
    distance = as_type_of(value, parameter) - parameter if value == value else 0.0
    return distance * distance


def _is_number(value, parameter):
    return np.int64(value == value)


def _is_nonzero(value, parameter):
    return np.int64(value != 0)


_fold_sum = folding(_add, _itself)
_fold_nansum = folding(_add, _number)
_fold_prod = folding(_multiply, _itself)
_fold_nanprod = folding(_multiply, _number)
_fold_squares = folding(_add, _square)
_fold_min = folding(_smaller, _element)
_fold_max = folding(_larger, _element)
_fold_nanmin = folding(_smaller_number, _element)
_fold_nanmax = folding(_larger_number, _element)
_fold_distance = folding(_add, _distance)
_fold_squared_distance = folding(_add, _squared_distance)
_fold_number_distance = folding(_add, _number_distance)
_fold_number_squared_distance = folding(_add, _number_squared_distance)
_fold_is_number = folding(_add, _is_number)
_fold_is_nonzero = folding(_add, _is_nonzero)


# -- sums and products
# --------------------------------------------------------------------------------------------


def _summing(fold):
    """Sum by pieces; what the addition of two pieces rounds away is kept and added at the end."""

    def block(x):
        zero = accumulator_zero(x)
        total, error = zero, zero
        for start in range(0, x.size, PIECE):
            piece = fold(x[start : start + PIECE], zero, zero)
            before = total
            total = before + piece
            back = total - before
            error += (before - (total - back)) + (piece - back)
        # nan where an infinity came in: the total is right then. Zero would turn a total of -0.0 into 0.0.
        if (error == error) & (error != 0):
            total += error
        return total if x.size > 0 else as_type_of(0, zero)

    return block


_block_sum = part(_summing(_fold_sum))
_block_nansum = part(_summing(_fold_nansum))
_block_squares = part(_summing(_fold_squares))


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
    return _fold_prod(x, as_type_of(1, zero), zero)


@loop
def block_nanprod(x):
    """Product of a block with nan as one."""
    zero = accumulator_zero(x)
    one = as_type_of(1, zero)
    return _fold_nanprod(x, one, one)


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
    return _fold_min(x, x[0], 0)


@loop
def block_max(x):
    """Largest element; nan if there is one."""
    if x.size == 0:
        raise ValueError("the maximum of an empty block is not defined")
    return _fold_max(x, x[0], 0)


@loop
def block_nanmin(x):
    """Smallest element that is not nan; nan if there is none."""
    if x.size == 0:
        raise ValueError("the minimum of an empty block is not defined")
    return _fold_nanmin(x, x[0], 0)


@loop
def block_nanmax(x):
    """Largest element that is not nan; nan if there is none."""
    if x.size == 0:
        raise ValueError("the maximum of an empty block is not defined")
    return _fold_nanmax(x, x[0], 0)


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
            value = fold(piece, piece[0], 0)
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


_block_argmin = part(_locating(_fold_min, _less_or_nan))
_block_argmax = part(_locating(_fold_max, _greater_or_nan))


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


# -- mean and variance
# --------------------------------------------------------------------------------------------


@inlined
def combine_moments(left, right):
    """(count, mean, M2) of the joined block."""
    count = left[0] + right[0]
    share = right[0] / count if count > 0 else 0.0
    distance = right[1] - left[1]
    mean = left[1] + distance * share if left[0] > 0 else right[1]
    spread = distance * distance * share * left[0] if (left[0] > 0) & (right[0] > 0) else 0.0
    return count, mean, left[2] + right[2] + spread


@loop
def block_moments(x):
    """(count, mean, M2) of a real block, in float64: (0, 0.0, 0.0) for an empty one.

    Two passes over each piece, the second in the cache: the mean first, then the distances from it, whose own
    sum corrects what the mean lost to rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from shmarray.kernels.reductions import block_moments, variance
    >>> moments = block_moments(np.array([1.0, 2.0, 3.0]))
    >>> float(moments[1]), float(variance(moments, 0)) == 2 / 3
    (2.0, True)
    """
    total = (0, 0.0, 0.0)
    for start in range(0, x.size, PIECE):
        piece = x[start : start + PIECE]
        mean = _fold_sum(piece, -0.0, 0.0) / piece.size
        rest = _fold_distance(piece, 0.0, mean)
        squares = _fold_squared_distance(piece, 0.0, mean)
        partial = (piece.size, mean + rest / piece.size, squares - rest * rest / piece.size)
        total = combine_moments(total, partial)
    return total


@loop
def block_nanmoments(x):
    """(count, mean, M2) of the elements that are not nan, as `block_moments`."""
    total = (0, 0.0, 0.0)
    for start in range(0, x.size, PIECE):
        piece = x[start : start + PIECE]
        count = _fold_is_number(piece, 0, 0)
        if count > 0:
            mean = _fold_nansum(piece, -0.0, 0.0) / count
            rest = _fold_number_distance(piece, 0.0, mean)
            squares = _fold_number_squared_distance(piece, 0.0, mean)
            total = combine_moments(total, (count, mean + rest / count, squares - rest * rest / count))
    return total


@inlined
def variance(moments, ddof):
    """The variance of a partial of moments: nan where `ddof` leaves no degree of freedom.

    Where NumPy divides by a negative number or zero (and warns) this gives nan.
    """
    freedom = moments[0] - ddof
    return moments[2] / freedom if freedom > 0 else np.nan


# -- counting and logic
# -------------------------------------------------------------------------------------------


@loop
def block_count_nonzero(x):
    """Number of elements that are not zero; nan is not zero."""
    return _fold_is_nonzero(x, 0, 0)


@loop
def block_any(x):
    """Whether an element is not zero; stops at the first piece that has one."""
    for start in range(0, x.size, PIECE):  # noqa: SIM110 - numba compiles no generator expressions
        if _fold_is_nonzero(x[start : start + PIECE], 0, 0) > 0:
            return True
    return False


@loop
def block_all(x):
    """Whether no element is zero; stops at the first piece that has one."""
    for start in range(0, x.size, PIECE):
        piece = x[start : start + PIECE]
        if _fold_is_nonzero(piece, 0, 0) < piece.size:
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
