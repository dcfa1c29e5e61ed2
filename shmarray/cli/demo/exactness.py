"""Are two large arrays the same: to the bit, or by how much not?

Invariant: compared band by band, so that checking a result takes no copy of its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

__all__ = ["exact_statistics", "largest_difference", "same_bits"]

_ROWS = 64


def _bands(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    for first in range(0, arrays[0].shape[0], _ROWS):
        yield tuple(array[first : first + _ROWS] for array in arrays)


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two arrays of one dtype have the same bits: NaN equals NaN here, and -0 differs from 0.

    Examples
    --------
    >>> same_bits(np.array([0.0, np.nan]), np.array([0.0, np.nan]))
    True
    >>> same_bits(np.array([0.0]), np.array([-0.0]))
    False
    """
    bits = f"u{left.dtype.itemsize}"
    return all(np.array_equal(a.view(bits), b.view(bits)) for a, b in _bands(left, right))


def largest_difference(left: np.ndarray, right: np.ndarray) -> float:
    """The largest absolute difference; NaN if a NaN is among them.

    Examples
    --------
    >>> largest_difference(np.array([1, 250], np.uint8), np.array([2, 248], np.uint8))
    2.0
    """
    worst = 0.0
    for a, b in _bands(left, right):
        worst = float(np.maximum(worst, np.max(np.abs(np.subtract(a, b, dtype=np.float32)))))
    return worst


def exact_statistics(values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, standard deviation, least and greatest, with every sum in double precision.

    Examples
    --------
    >>> exact_statistics(np.array([1.0, 3.0], np.float32))
    (2.0, 1.0, 1.0, 3.0)
    """
    mean = math.fsum(float(np.sum(band, dtype=np.float64)) for (band,) in _bands(values)) / values.size
    squares = math.fsum(float(np.sum(np.square(band - np.float64(mean)))) for (band,) in _bands(values))
    lowest = min(float(band.min()) for (band,) in _bands(values))
    highest = max(float(band.max()) for (band,) in _bands(values))
    return mean, math.sqrt(squares / values.size), lowest, highest
