"""Count, mean and variance of 1-D blocks in one pass, and of two adjacent blocks together.

A partial is `(count, mean, M2)`: M2 is the sum of the squared distances from the mean. The identity is (0, 0.0, 0.0);
partials are combined by Chan, Golub and LeVeque (1979)::

    n = n_a + n_b      d = mean_b - mean_a
    mean = mean_a + d n_b / n
    M2   = M2_a + M2_b + d**2 n_a n_b / n

A block is gone through once, with its elements' distances from a value `c` near their mean: M2 is the sum of their
squares less `n (mean - c)**2`. That loses digits only as far as `c` is many standard deviations from the mean (Chan,
Golub and LeVeque, "Algorithms for computing the sample variance", 1983). Here `c` is the mean of the block's first row
of lanes, up to 256 elements of its own, so `256 (mean - c)**2` is at most M2, whatever the values are: in a block of
8,192 what is taken off is at most 32 times what remains, and usually a small part of it. Long blocks go in pieces
of 16,384.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._folding import LANES, PIECE, lanes_for
from ._jit import inlined, loop, part
from ._views import stack_array

__all__ = ["block_moments", "block_nanmoments", "combine_moments", "variance"]


@inlined
def combine_moments(left, right):
    """(count, mean, M2) of the joined block.

    Examples
    --------
    >>> from shmarray.kernels.moments import combine_moments
    >>> combine_moments((1, 1.0, 0.0), (1, 3.0, 0.0))
    (2, 2.0, 2.0)
    """
    count = left[0] + right[0]
    share = right[0] / count if count > 0 else 0.0
    distance = right[1] - left[1]
    mean = left[1] + distance * share if left[0] > 0 else right[1]
    spread = distance * distance * share * left[0] if (left[0] > 0) & (right[0] > 0) else 0.0
    return count, mean, left[2] + right[2] + spread


@inlined
def variance(moments, ddof):
    """The variance of a partial of moments: nan where `ddof` leaves no degree of freedom.

    Where NumPy divides by a negative number or zero (and warns) this gives nan.
    """
    freedom = moments[0] - ddof
    return moments[2] / freedom if freedom > 0 else np.nan


def _of_block(*, skips_nan: bool) -> Callable[..., Any]:
    def moments(x):
        size = np.uint64(x.size)
        width = lanes_for(size)
        sums, squares = stack_array(0.0, LANES), stack_array(0.0, LANES)
        first = np.uint64(0)
        if skips_nan:
            while first < size and x[first] != x[first]:
                first += np.uint64(1)
        if first >= size:
            return np.int64(0), 0.0, 0.0
        # From the first element on, so that equal elements have no distance at all from what comes out.
        origin = np.float64(x[first])
        rest, count = np.float64(0.0), np.int64(0)
        for j in range(first, size if size - first < width else first + width):
            distance = np.float64(x[j]) - origin
            if not skips_nan or distance == distance:
                rest += distance
                count += 1
        origin += rest / count
        for j in range(width):
            sums[j] = squares[j] = 0.0
        count, i = np.int64(0), np.uint64(0)
        while i < size:
            n = width if size - i > width else size - i
            for j in range(n):
                distance = np.float64(x[i + j]) - origin
                if skips_nan:
                    is_number = x[i + j] == x[i + j]
                    distance = distance if is_number else np.float64(0.0)
                    count += np.int64(is_number)
                sums[j] += distance
                squares[j] += distance * distance
            i += width
        while width > np.uint64(1):
            width = width >> np.uint64(1)
            for j in range(width):
                sums[j] += sums[j + width]
                squares[j] += squares[j + width]
        if not skips_nan:
            count = np.int64(x.size)
        rest, spread = sums[0], squares[0]
        if (spread < np.inf) | (rest - rest != 0.0):  # squares that are too large are, infinite elements are nan
            spread -= rest * (rest / count)
        return count, origin + rest / count, 0.0 if spread < 0.0 else spread

    return moments


of_block = part(_of_block(skips_nan=False))
of_numbers = part(_of_block(skips_nan=True))


@loop
def block_moments(x):
    """(count, mean, M2) of a real block, in float64: (0, 0.0, 0.0) for an empty one.

    Parameters
    ----------
    x : (n,) array
        Of any real dtype, contiguous or not.

    Examples
    --------
    >>> import numpy as np
    >>> from shmarray.kernels.moments import block_moments, variance
    >>> moments = block_moments(np.array([1.0, 2.0, 3.0]))
    >>> float(moments[1]), float(variance(moments, 0)) == 2 / 3
    (2.0, True)
    """
    total = of_block(x[:PIECE])
    for start in range(PIECE, x.size, PIECE):
        total = combine_moments(total, of_block(x[start : start + PIECE]))
    return total


@loop
def block_nanmoments(x):
    """(count, mean, M2) of the elements that are not nan, as `block_moments`."""
    total = of_numbers(x[:PIECE])
    for start in range(PIECE, x.size, PIECE):
        total = combine_moments(total, of_numbers(x[start : start + PIECE]))
    return total
